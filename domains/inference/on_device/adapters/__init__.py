"""LoRAs and learned words on a device, for one job each: they change neither the weights nor the modules of the model.

A job's `Adapters` hold, for each layer that they change, small matrices whose product is added to the layer's own output
while the job's rows are computed (`beside`). `adapter_file` reads a file. `lora_names` finds the layer that each tensor
belongs to, with diffusers' own conversions; `lora_conversion` and `lora_standing` convert what is for transformers, and
`lora_parts` reads the rest of the names. `lora_fit` fits a file to a model, `factors` computes the differences,
`job_adapters` makes those of a job, and `pool` keeps files in host memory. `words_fit` fits textual inversions, whose words
text encoders then read (`learned_words`).
"""

from domains.inference.on_device.adapters.beside import NO_ADAPTERS as NO_ADAPTERS
from domains.inference.on_device.adapters.beside import Adapters as Adapters
from domains.inference.on_device.adapters.beside import Share as Share
from domains.inference.on_device.adapters.beside import add_beside as add_beside
from domains.inference.on_device.adapters.beside import beside as beside
from domains.inference.on_device.adapters.beside import words_of as words_of
from domains.inference.on_device.adapters.job_adapters import Asked as Asked
from domains.inference.on_device.adapters.job_adapters import asked_of as asked_of
from domains.inference.on_device.adapters.pool import AdapterPool as AdapterPool
