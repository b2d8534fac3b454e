"""The schedulers we serve: one visible list, read by the capability list, by validation and by the samplers.

The solvers themselves are diffusers' (`on_device/samplers.py` ties each id to its class and refuses to start without one).
To add one: an entry here, one line there, and its class names in `domains/model/scheduler_names.py`; the exactness test
then covers it.
"""

from collections.abc import Mapping

import msgspec

from domains.model.scheduler_names import classes_of, of_class

__all__ = ["SCHEDULERS", "Scheduler", "of_class"]


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

    @property
    def class_names(self) -> tuple[str, ...]:
        """`_class_name` values of a model's scheduler_config.json that this is the same solver as."""
        return classes_of(self.id)


SCHEDULERS: Mapping[str, Scheduler] = {
    scheduler.id: scheduler
    for scheduler in (
        Scheduler(
            id="euler",
            display_name="Euler",
            recommended_steps=25,
            karras=True,
        ),
        Scheduler(
            id="euler_a",
            display_name="Euler ancestral",
            recommended_steps=25,
            stochastic=True,
        ),
        Scheduler(
            id="ddim",
            display_name="DDIM",
            recommended_steps=25,
            eta=True,
        ),
        Scheduler(
            id="dpmpp_2m",
            display_name="DPM++ 2M",
            recommended_steps=20,
            karras=True,
        ),
        Scheduler(
            id="unipc",
            display_name="UniPC",
            recommended_steps=20,
            karras=True,
        ),
    )
}
"""By id, in the order in which they are shown."""
