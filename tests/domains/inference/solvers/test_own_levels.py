"""A walk over noise levels that a request lists, as diffusers walks it where it takes such a list."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import diffusers.schedulers
import pytest
from torch import Tensor

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.own_walk import SPACINGS, OwnWalk
from domains.inference.samplers import SAMPLERS
from domains.inference.solvers.plan import Plan, plan
from tests.domains.inference.solvers.walking import SD1, denoiser, gap, noises, walked

theirs_of: Any = diffusers.schedulers
"""Untyped: the package imports its classes late."""
pytestmark = pytest.mark.filterwarnings("ignore")  # Diffusers' schedulers warn at every step.
TOLERANCE = 1e-4
SIGMAS = (14.6, 6.4, 2.9, 1.1, 0.3, 0.0)
TIMESTEPS = (999, 850, 633, 370, 111, 24)
READERS = [name for name, one in SAMPLERS.items() if "sigmas" in one.options]
FLOW: Mapping[str, object] = {"_class_name": "FlowMatchEulerDiscreteScheduler"}


def own_plan(sampler: str, config: Mapping[str, object] = SD1, **own: Any) -> Plan:
    return plan(sampler, config, sigma_schedule="", steps=0, eta=None, own=OwnWalk(**own))


def theirs(scheduler: Any, **levels: object) -> Tensor:
    """The final latents by diffusers."""
    scheduler.set_timesteps(**levels)
    scheduler.set_begin_index(0)
    fresh = noises()
    latents = next(fresh) * getattr(scheduler, "init_noise_sigma", 1.0)
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents
        latents = scheduler.step(denoiser(scaled, timestep), timestep, latents, return_dict=False)[0]
    return latents


def test_euler_visits_the_sigmas_that_it_is_given() -> None:
    reference = theirs_of.EulerDiscreteScheduler.from_config(SD1)
    assert gap(walked(own_plan("euler", sigmas=SIGMAS)), theirs(reference, sigmas=list(SIGMAS))) < TOLERANCE


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        ("euler", theirs_of.EulerDiscreteScheduler),
        ("heun", theirs_of.HeunDiscreteScheduler),
        ("dpmpp_2m", theirs_of.DPMSolverMultistepScheduler),
    ],
)
def test_solvers_visit_the_timesteps_that_they_are_given(sampler: str, scheduler: Any) -> None:
    reference = theirs(scheduler.from_config(SD1), timesteps=list(TIMESTEPS))
    assert gap(walked(own_plan(sampler, timesteps=TIMESTEPS)), reference) < TOLERANCE


def test_a_flow_model_visits_the_sigmas_and_timesteps_that_it_is_given() -> None:
    sigmas = (1.0, 0.8, 0.45, 0.1)
    reference = theirs(theirs_of.FlowMatchEulerDiscreteScheduler(), sigmas=list(sigmas))
    assert gap(walked(own_plan("euler", FLOW, sigmas=(*sigmas, 0.0))), reference) < TOLERANCE
    timesteps = tuple(int(1000 * sigma) for sigma in sigmas[1:])
    by_timesteps = walked(own_plan("euler", FLOW, timesteps=timesteps))
    assert gap(by_timesteps, walked(own_plan("euler", FLOW, sigmas=(*sigmas[1:], 0.0)))) < 1e-6


@pytest.mark.parametrize("shift", [1.0, 2.5])
def test_a_flow_shift_counts_in_place_of_the_models_own(shift: float) -> None:
    grown = {**FLOW, "use_dynamic_shifting": True, "shift": 3.0}
    asked = plan("euler", grown, sigma_schedule="normal", steps=5, eta=None, own=OwnWalk(flow_shift=shift))
    reference = theirs(theirs_of.FlowMatchEulerDiscreteScheduler(shift=shift), num_inference_steps=5)
    assert gap(walked(asked), reference) < TOLERANCE


@pytest.mark.parametrize("sampler", READERS)
def test_every_sampler_with_schedules_walks_own_levels_to_their_end(sampler: str) -> None:
    for last in (0.0, 0.1):
        sigmas = (*SIGMAS[:-1], last)
        lines = [line for line in own_plan(sampler, sigmas=sigmas).lines if line.ends_step]
        assert len(lines) == len(SIGMAS) - 1
        once = SAMPLERS[sampler].evaluations_per_step == 1
        told = [line.timestep for line in lines]
        assert not once or all(after < before for before, after in pairwise(told))
        assert walked(own_plan(sampler, sigmas=sigmas)).isfinite().all()
    assert own_plan(sampler, timesteps=TIMESTEPS).steps == len(TIMESTEPS)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sampler", [name for name, one in SAMPLERS.items() if "timestep_spacing" in one.options])
def test_a_spacing_counts_in_place_of_the_models_own(sampler: str, spacing: str) -> None:
    own = OwnWalk(timestep_spacing=spacing)
    config = {**SD1, "timestep_spacing": spacing}
    asked = plan(sampler, SD1, sigma_schedule="normal", steps=7, eta=None, own=own)
    assert asked == plan(sampler, config, sigma_schedule="normal", steps=7, eta=None)


@pytest.mark.parametrize("sampler", [name for name, one in SAMPLERS.items() if "solver_order" in one.options])
def test_an_order_counts_in_place_of_the_models_own(sampler: str) -> None:
    plans = [
        plan(sampler, SD1, sigma_schedule="normal", steps=7, eta=None, own=OwnWalk(solver_order=order))
        for order in (1, 2, 3)
    ]
    assert len({one.lines for one in plans}) == 3
    assert plans[1] == plan(sampler, SD1, sigma_schedule="normal", steps=7, eta=None)


def test_timesteps_below_the_level_that_a_solver_ends_at_are_refused_by_their_place() -> None:
    with pytest.raises(InvalidRequest) as told:
        own_plan("deis", timesteps=(999, 500, 0))
    assert told.value.reason is ErrorReason.UNSUPPORTED_COMBINATION
    assert [one.field for one in told.value.violations] == ["generation.sampling.timesteps[2]"]
