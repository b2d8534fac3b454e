"""ControlNets: networks that guide the layout of a job's pictures by control maps, beside its prompt.

T2I adapters guide likewise, by features of their maps: `features` adds them, `adapter_making` makes them before the first
step.

`guiding_net` says what one does, whatever family it guides; `control_net`, `sd3_net`, `flux_net` and `z_image_net`
compute those of diffusers, which `kinds` lists; `making` makes the controls of one job, `job_controls` is their value, and
`group_controls` computes them for the rows of jobs that share a forward.
"""

from domains.inference.on_device.controls.adapter_making import FeaturesOfJob as FeaturesOfJob
from domains.inference.on_device.controls.control_net import ControlNet as ControlNet
from domains.inference.on_device.controls.features import NO_FEATURES as NO_FEATURES
from domains.inference.on_device.controls.features import Features as Features
from domains.inference.on_device.controls.features import GroupFeatures as GroupFeatures
from domains.inference.on_device.controls.features import JobFeatures as JobFeatures
from domains.inference.on_device.controls.features import Owner as Owner
from domains.inference.on_device.controls.group_controls import GroupControls as GroupControls
from domains.inference.on_device.controls.group_controls import Member as Member
from domains.inference.on_device.controls.guiding_net import GuidingNet as GuidingNet
from domains.inference.on_device.controls.guiding_net import SeePicture as SeePicture
from domains.inference.on_device.controls.job_controls import NO_CONTROLS as NO_CONTROLS
from domains.inference.on_device.controls.job_controls import Controls as Controls
from domains.inference.on_device.controls.job_controls import JobControl as JobControl
from domains.inference.on_device.controls.making import ControlsOfJob as ControlsOfJob
from domains.inference.on_device.controls.making import Reading as Reading
