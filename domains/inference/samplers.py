"""The samplers and sigma schedules that are served: one list for capabilities, validation and the engine.

A sampler is the solver, a sigma schedule the noise levels that it visits; a "scheduler" of diffusers is both in one. To add
one: a function in `solvers/`, a line in `solvers/table.py`, an entry here, and its class of diffusers, if it has one, in
`domains/model/sampler_names.py`; the tests against diffusers then cover it.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.model.model import Model
from domains.model.sampler_names import of_class

__all__ = [
    "SAMPLERS",
    "SIGMA_SCHEDULES",
    "SamplerEntry",
    "most_steps",
    "of_class",
    "sampler_of",
    "schedule_of",
    "schedules_for",
    "schedules_of",
    "steps_refusal",
    "walkers_of",
]

DISTILLED_STEPS = 50
"""Most steps of LCM and TCD: their models were distilled to as many timesteps."""

SIGMA_SCHEDULES: Mapping[str, str] = {
    "normal": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "linear_quadratic": "Linear Quadratic",
    "align_your_steps": "Align Your Steps",
}
"""A1111's name of each schedule, by id, in display order."""

WALK_OPTIONS = ("solver_order", "timestep_spacing", "sigmas", "timesteps")
"""Fields of `Sampling`, beside `eta`, that only some samplers read."""

WHOLE_SCHEDULES = ("simple",)
"""Schedules that visit trained levels alone, each once."""


class SamplerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One way from noise to picture."""

    id: str
    display_name: str
    recommended_steps: int
    """Number of steps for a request that names none."""
    sigma_schedules: tuple[str, ...] = ("normal",)
    """Ids of the schedules that the sampler takes; others are refused. Always contains `normal`."""
    flow_schedules: tuple[str, ...] = ()
    """Those that it takes with a flow model; empty: it walks none."""
    eta: bool = False
    """Whether the sampler uses `eta`; others refuse a value above 0."""
    default_eta: float = 0.0
    """`eta` of a request that names none."""
    stochastic: bool = False
    """Whether a step draws new noise (from the seed, so that the picture is repeatable)."""
    trained_steps_only: bool = False
    """Whether the schedule `normal` limits the steps to the number of trained ones: each of its noise levels is a trained
    one and is used once."""
    most_steps: int | None = None
    """Most steps, whatever the model; None: no limit of the sampler's own."""
    evaluations_per_step: int = 1
    """Number of denoiser evaluations in a step."""
    ordered: bool = False
    """Whether the request chooses the solver's order."""

    @property
    def options(self) -> tuple[str, ...]:
        """The fields of `Sampling` that it reads and others do not."""
        read = {
            "eta": self.eta,
            "solver_order": self.ordered,
            # The distilled ones visit what they were distilled to.
            "timestep_spacing": self.most_steps is None,
            "sigmas": len(self.sigma_schedules) > 1,
            "timesteps": len(self.sigma_schedules) > 1,
        }
        return tuple(name for name, reads in read.items() if reads)


def _entry(
    sampler_id: str, display_name: str, recommended_steps: int, schedules: tuple[str, ...], **facts: Any
) -> SamplerEntry:
    return SamplerEntry(
        id=sampler_id,
        display_name=display_name,
        recommended_steps=recommended_steps,
        sigma_schedules=schedules,
        **facts,
    )


_ALL = tuple(SIGMA_SCHEDULES)
_OWN = ("normal",)
_FLOW: Mapping[str, Any] = {"flow_schedules": ("normal", "karras", "exponential", "beta")}
_TRAINED: Mapping[str, Any] = {"trained_steps_only": True}
_TWICE: Mapping[str, Any] = {"evaluations_per_step": 2}
_NOISY: Mapping[str, Any] = {"stochastic": True}
_ORDERED: Mapping[str, Any] = {"ordered": True, **_TRAINED}
_DISTILLED: Mapping[str, Any] = {"most_steps": DISTILLED_STEPS, **_TRAINED}

SAMPLERS: Mapping[str, SamplerEntry] = {
    sampler.id: sampler
    for sampler in (
        _entry("euler", "Euler", 25, _ALL, **_FLOW),
        _entry("euler_a", "Euler a", 25, _ALL, **_NOISY),
        _entry("heun", "Heun", 15, _ALL, **_TWICE, **_FLOW),
        _entry("dpm2", "DPM2", 15, _ALL, **_TWICE),
        _entry("dpm2_a", "DPM2 a", 15, _ALL, **_TWICE, **_NOISY),
        _entry("dpmpp_2s_a", "DPM++ 2S a", 15, _ALL, **_TWICE, **_NOISY),
        _entry("dpmpp_2m", "DPM++ 2M", 20, _ALL, **_TRAINED),
        _entry("dpmpp_2m_sde", "DPM++ 2M SDE", 20, _ALL, **_TRAINED, **_NOISY),
        _entry("dpmpp_sde", "DPM++ SDE", 15, _ALL, **_TWICE, **_NOISY),
        _entry("dpmpp_3m_sde", "DPM++ 3M SDE", 25, _ALL, **_TRAINED, **_NOISY),
        _entry("ddim", "DDIM", 25, _OWN, eta=True, **_TRAINED),
        _entry("ddpm", "DDPM", 50, _OWN, **_TRAINED, **_NOISY),
        _entry("pndm", "PLMS", 25, _OWN, **_TRAINED),
        _entry("lms", "LMS", 25, _ALL),
        _entry("deis", "DEIS", 20, _ALL, **_ORDERED),
        _entry("unipc", "UniPC", 20, _ALL, **_ORDERED),
        _entry("res_multistep", "Res Multistep", 20, _ALL),
        _entry("lcm", "LCM", 4, _OWN, **_DISTILLED, **_NOISY),
        _entry("tcd", "TCD", 4, _OWN, eta=True, default_eta=0.3, **_DISTILLED),
    )
}
"""By id, in display order."""


def schedules_for(sampler: str, *, flow: bool) -> tuple[str, ...]:
    """The sigma schedules that a sampler takes with a flow model, or with others; empty: it does not walk such models."""
    entry = SAMPLERS[sampler]
    return entry.flow_schedules if flow else entry.sigma_schedules


def walkers_of(*, flow: bool) -> tuple[str, ...]:
    """The samplers that walk flow models, or others."""
    return tuple(name for name in SAMPLERS if schedules_for(name, flow=flow))


def schedules_of(*, flow: bool) -> tuple[str, ...]:
    """The sigma schedules that some sampler takes with flow models, or with others."""
    taken = {schedule for name in SAMPLERS for schedule in schedules_for(name, flow=flow)}
    return tuple(name for name in SIGMA_SCHEDULES if name in taken)


def sampler_of(model: Model) -> str:
    """The default sampler of a model."""
    able = walkers_of(flow=model.flow)
    return model.default_sampler if model.default_sampler in able else able[0]


def schedule_of(model: Model, sampler: str) -> str:
    """The default sigma schedule: the model's own if the sampler takes it, else `normal`."""
    own = model.default_sigma_schedule
    return own if own in schedules_for(sampler, flow=model.flow) else "normal"


def most_steps(model: Model, sampler: str, sigma_schedule: str) -> int | None:
    """Most steps of a sampler with a model. None: no limit below that of a request, or an unknown one."""
    if model.flow:
        return None
    return most_trained_steps(model.train_steps, sampler, sigma_schedule)


def most_trained_steps(trained: int | None, sampler: str, sigma_schedule: str) -> int | None:
    """Most steps of a sampler with a model that was trained with so many; None or 0 if that is unknown."""
    entry = SAMPLERS[sampler]
    bounded = sigma_schedule in WHOLE_SCHEDULES or (entry.trained_steps_only and sigma_schedule == "normal")
    limits = [entry.most_steps, trained if bounded else None]
    return min((limit for limit in limits if limit), default=None)


def steps_refusal(sampler: str, steps: int, most: int) -> InvalidRequest:
    """The error for more steps than a sampler can do with a model."""
    message = f"{sampler} walks at most {most} steps with this model; {steps} would repeat a noise level"
    violation = Violation(field="generation.sampling.steps", message=message, allowed=f"1..{most}")
    return InvalidRequest([violation], ErrorReason.UNSUPPORTED_COMBINATION)
