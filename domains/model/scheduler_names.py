"""Our ids for the schedulers that models ship with: `_class_name` in a scheduler_config.json → id.

The one table of these names: `domains.inference.schedulers` serves the ids, and derives its class names from here.
"""

from collections.abc import Mapping

SCHEDULER_OF_CLASS: Mapping[str, str] = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
}
"""A class that is not here has no like among ours: the model then has no default of its own."""


def of_class(class_name: str) -> str:
    """Our id for a scheduler class of diffusers; empty if we have none like it."""
    return SCHEDULER_OF_CLASS.get(class_name, "")


def classes_of(scheduler_id: str) -> tuple[str, ...]:
    """The class names that one of our ids stands for."""
    return tuple(name for name, known_id in SCHEDULER_OF_CLASS.items() if known_id == scheduler_id)
