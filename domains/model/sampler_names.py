"""Translates a model's scheduler_config.json (diffusers) to our ids of the sampler and of the sigma schedule.

The one table of these names: `domains.inference.samplers` serves the ids, and derives its class names from here.
"""

from collections.abc import Mapping
from typing import Any

SAMPLER_OF_CLASS: Mapping[str, str] = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "HeunDiscreteScheduler": "heun",
    "KDPM2DiscreteScheduler": "dpm2",
    "KDPM2AncestralDiscreteScheduler": "dpm2_a",
    "DPMSolverSDEScheduler": "dpmpp_sde",
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "PNDMScheduler": "pndm",
    "LMSDiscreteScheduler": "lms",
    "DEISMultistepScheduler": "deis",
    "LCMScheduler": "lcm",
    "TCDScheduler": "tcd",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
    "FlowMatchEulerDiscreteScheduler": "euler",
    "FlowMatchHeunDiscreteScheduler": "heun",
}
"""A class that is not listed has no equivalent here: the model then has no default sampler."""

FLAG_OF_SCHEDULE: Mapping[str, str] = {
    "karras": "use_karras_sigmas",
    "exponential": "use_exponential_sigmas",
    "beta": "use_beta_sigmas",
}
"""The option of diffusers' schedulers that selects each sigma schedule; `normal` has none."""


def of_class(class_name: str) -> str:
    """Our id for a scheduler class of diffusers; empty: we have none like it."""
    return SAMPLER_OF_CLASS.get(class_name, "")


def schedule_of(config: Mapping[str, Any]) -> str:
    """The sigma schedule that a scheduler_config.json asks for; `normal` where it asks for none."""
    return next((schedule for schedule, flag in FLAG_OF_SCHEDULE.items() if config.get(flag)), "normal")
