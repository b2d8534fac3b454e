"""The samplers and sigma schedules that are served: one list for capabilities, validation and the engine.

A sampler is the solver, a sigma schedule the noise levels that it visits; a "scheduler" of diffusers is both in one. The
solvers are diffusers' (`on_device/samplers.py` ties each id to its class and refuses to start without one). To add one: an
entry here, one line there, and its class names in `domains/model/sampler_names.py`; the exactness test then covers it.
"""

from collections.abc import Mapping

import msgspec

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.model.model import Model
from domains.model.sampler_names import classes_of, of_class

__all__ = [
    "SAMPLERS",
    "SIGMA_SCHEDULES",
    "SamplerEntry",
    "most_steps",
    "of_class",
    "sampler_of",
    "schedule_of",
    "steps_refusal",
]

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
    trained_steps_only: bool = False
    """Whether the schedule `normal` limits the steps to the number of trained ones: each of its noise levels is a trained
    one and is used once."""
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
        SamplerEntry(id="ddim", display_name="DDIM", recommended_steps=25, eta=True, trained_steps_only=True),
        SamplerEntry(
            id="dpmpp_2m",
            display_name="DPM++ 2M",
            recommended_steps=20,
            sigma_schedules=_ALL,
            trained_steps_only=True,
        ),
        SamplerEntry(
            id="unipc", display_name="UniPC", recommended_steps=20, sigma_schedules=_ALL, trained_steps_only=True
        ),
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


def most_steps(model: Model, sampler: str, sigma_schedule: str) -> int | None:
    """Most steps of a sampler with a model. None: no limit below that of a request, or an unknown one."""
    bounded = SAMPLERS[sampler].trained_steps_only and sigma_schedule == "normal"
    return model.train_steps or None if bounded else None


def steps_refusal(sampler: str, steps: int, most: int) -> InvalidRequest:
    """The error for more steps than a sampler can do with a model."""
    message = f"{sampler} walks at most {most} steps with this model; {steps} would repeat a noise level"
    violation = Violation(field="generation.sampling.steps", message=message, allowed=f"1..{most}")
    return InvalidRequest([violation], ErrorReason.UNSUPPORTED_COMBINATION)
