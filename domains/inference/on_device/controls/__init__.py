"""ControlNets: networks that guide the layout of a job's pictures by control maps, beside its prompt.

`control_net` computes one of diffusers, `control_pool` keeps those that jobs use, each once, `making` makes the controls of
one job, `job_controls` is their value, and `group_controls` computes them for the rows of jobs that share a forward.
"""

from domains.inference.on_device.controls.control_net import ControlNet as ControlNet
from domains.inference.on_device.controls.control_pool import ControlPool as ControlPool
from domains.inference.on_device.controls.group_controls import GroupControls as GroupControls
from domains.inference.on_device.controls.group_controls import Member as Member
from domains.inference.on_device.controls.job_controls import NO_CONTROLS as NO_CONTROLS
from domains.inference.on_device.controls.job_controls import Controls as Controls
from domains.inference.on_device.controls.job_controls import JobControl as JobControl
from domains.inference.on_device.controls.making import ControlsOfJob as ControlsOfJob
from domains.inference.on_device.controls.making import Reading as Reading
