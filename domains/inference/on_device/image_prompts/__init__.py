"""IP-Adapters: pictures that guide a job's content and style through its layers of attention, beside its prompt.

`projections` makes tokens of pictures; `adapter_net` (U-Nets), `flux_net` and `sd3_net` compute the adapters of a kind, and
`kinds` is the table of them. `encoder` says what an adapter reads of pictures, `making` makes the image prompts of one job,
and `job_prompts` is their value. `group_reads`, one folder up, has the rows of jobs that share a forward read them, in the
layers of `networks/transformer` (U-Nets) and `networks/joint_reads` (transformers).
"""

from domains.inference.on_device.image_prompts.job_prompts import NO_IMAGE_PROMPTS as NO_IMAGE_PROMPTS
from domains.inference.on_device.image_prompts.job_prompts import ImagePrompts as ImagePrompts
from domains.inference.on_device.image_prompts.job_prompts import JobImagePrompt as JobImagePrompt
from domains.inference.on_device.image_prompts.making import ImagePromptsOfJob as ImagePromptsOfJob
