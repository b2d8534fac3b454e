"""The schedulers we serve: one visible list, read by the capability list, by validation and by the samplers.

The solvers themselves are diffusers' (`on_device/samplers.py` ties each id to its class and refuses to start without one).
To add one: an entry here and one line there; the exactness test then covers it.
"""

from collections.abc import Mapping

import msgspec


class Scheduler(msgspec.Struct, frozen=True, kw_only=True):
    """A way to walk from noise to picture."""

    id: str
    display_name: str
    recommended_steps: int
    """What a request gets that names no number."""
    karras: bool = False
    """Whether `karras_sigmas` is read; the others refuse it."""
    eta: bool = False
    """Whether `eta` is read; the others ignore it."""
    stochastic: bool = False
    """Whether a step draws new noise (from the seed, so that the picture stays repeatable)."""
    class_names: tuple[str, ...]
    """`_class_name` values of a model's scheduler_config.json that this is the same solver as."""


SCHEDULERS: Mapping[str, Scheduler] = {
    scheduler.id: scheduler
    for scheduler in (
        Scheduler(
            id="euler",
            display_name="Euler",
            recommended_steps=25,
            karras=True,
            class_names=("EulerDiscreteScheduler",),
        ),
        Scheduler(
            id="euler_a",
            display_name="Euler ancestral",
            recommended_steps=25,
            stochastic=True,
            class_names=("EulerAncestralDiscreteScheduler",),
        ),
        Scheduler(
            id="ddim",
            display_name="DDIM",
            recommended_steps=25,
            eta=True,
            class_names=("DDIMScheduler",),
        ),
        Scheduler(
            id="dpmpp_2m",
            display_name="DPM++ 2M",
            recommended_steps=20,
            karras=True,
            class_names=("DPMSolverMultistepScheduler",),
        ),
        Scheduler(
            id="unipc",
            display_name="UniPC",
            recommended_steps=20,
            karras=True,
            class_names=("UniPCMultistepScheduler",),
        ),
    )
}
"""By id, in the order in which they are shown."""


def of_class(class_name: str) -> str:
    """Our id for a scheduler named as in scheduler_config.json; empty if we have none like it."""
    return next((s.id for s in SCHEDULERS.values() if class_name in s.class_names), "")
