"""Compiled code of denoisers, for loads that ask for it (`execution.compile`).

Compiled are the blocks of which a denoiser has many, one by one: the attention blocks of a U-Net, all blocks of a
transformer. Blocks of a kind share their code, which reads their weights as inputs, so a shape is compiled once for all of
them, and a model that is offloaded or streamed brings its weights as usual. The code serves any number of rows from two on.

Code knows neither hooks nor what jobs add to layers. So steps whose layers are changed (LoRAs, IP-Adapters, prompts of
regions) compute as usual, which their jobs tell; ControlNets and T2I adapters act between the blocks and stay. Jobs that ask
for exact pictures compute as usual, too.

`compiling`: a family whose blocks compute with code. `denoiser_code`: the code of one load. `twins`: blocks without
weights, of which code is made. `making`: makes code beside the thread that ticks. `inductor`: torch's compiler, its settings
and files.
"""

from domains.inference.on_device.compiling.compiling import compiling as compiling
from domains.inference.on_device.compiling.compiling import taken_reasons as taken_reasons
from domains.inference.on_device.compiling.making import code_permitted as code_permitted
