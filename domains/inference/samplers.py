"""The samplers and sigma schedules that are served: one list for capabilities, validation and the engine.

A sampler is the solver, a sigma schedule the noise levels that it visits; a "scheduler" of diffusers is both in one. The
solvers are diffusers' (`on_device/samplers.py` ties each id to its class and refuses to start without one). To add one: an
entry here, one line there, and its class names in `domains/model/sampler_names.py`; the exactness test then covers it.
"""

from collections.abc import Mapping

import msgspec

from domains.model.model import Model
from domains.model.sampler_names import classes_of, of_class

__all__ = ["SAMPLERS", "SIGMA_SCHEDULES", "SamplerEntry", "of_class", "sampler_of", "schedule_of"]

SIGMA_SCHEDULES: Mapping[str, str] = {"normal": "Normal", "karras": "Karras", "exponential": "Exponential"}
"""A1111's name of each schedule, by id, in display order."""


class SamplerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One way from noise to picture."""

    id: str
    display_name: str
    recommended_steps: int
    """Number of steps for a request that names none."""
    sigma_schedules: tuple[str, ...] = ("normal",)
    """Ids of the schedules that the sampler takes; others are refused. Always contains `normal`."""
    eta: bool = False
    """Whether the sampler uses `eta`; others refuse a value above 0."""
    stochastic: bool = False
    """Whether a step draws new noise (from the seed, so that the picture is repeatable)."""
    evaluations_per_step: int = 1
    """Number of denoiser evaluations in a step."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """`_class_name` values of a model's scheduler_config.json that stand for this solver."""
        return classes_of(self.id)


_ALL = tuple(SIGMA_SCHEDULES)

SAMPLERS: Mapping[str, SamplerEntry] = {
    sampler.id: sampler
    for sampler in (
        SamplerEntry(id="euler", display_name="Euler", recommended_steps=25, sigma_schedules=_ALL),
        SamplerEntry(id="euler_a", display_name="Euler a", recommended_steps=25, stochastic=True),
        SamplerEntry(id="ddim", display_name="DDIM", recommended_steps=25, eta=True),
        SamplerEntry(id="dpmpp_2m", display_name="DPM++ 2M", recommended_steps=20, sigma_schedules=_ALL),
        SamplerEntry(id="unipc", display_name="UniPC", recommended_steps=20, sigma_schedules=_ALL),
    )
}
"""By id, in display order."""


def sampler_of(model: Model) -> str:
    """The default sampler of a model."""
    return model.default_sampler or next(iter(SAMPLERS))


def schedule_of(model: Model, sampler: str) -> str:
    """The default sigma schedule: the model's own if the sampler takes it, else `normal`."""
    own = model.default_sigma_schedule
    return own if own in SAMPLERS[sampler].sigma_schedules else "normal"
