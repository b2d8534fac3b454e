"""The samplers behind our ids."""

from typing import Any

import pytest
import torch

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest
from domains.inference.on_device.samplers import Sampler
from domains.inference.samplers import SAMPLERS

CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}


def a_sampler(name: str, schedule: str = "normal", *, steps: int = 9, eta: float = 0.0, **config: object) -> Sampler:
    return Sampler(name, CONFIG | config, sigma_schedule=schedule, steps=steps, eta=eta)


WAYS = [(name, schedule) for name, one in SAMPLERS.items() for schedule in one.sigma_schedules]


@pytest.mark.parametrize(("name", "schedule"), WAYS)
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_every_sampler_walks_as_many_steps_as_asked(name: str, schedule: str, steps: int) -> None:
    assert a_sampler(name, schedule, steps=steps).steps == steps


@pytest.mark.parametrize(("name", "schedule"), WAYS)
def test_a_perfect_denoiser_is_led_to_the_clean_latents(name: str, schedule: str) -> None:
    """The output that names the true x0 at every step must end at it, and every estimate must be it."""
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 8, 8).unbind()
    sampler = a_sampler(name, schedule, steps=12, prediction_type="sample")
    latents = noise * sampler.initial_scale
    for index in range(sampler.steps):
        sampler.scaled(latents, index)
        latents, x0 = sampler.step(clean, latents, index, torch.zeros_like(clean) if sampler.needs_noise else None)
        assert torch.allclose(x0, clean, atol=1e-4)
    # DDIM's last level is the training's first, which has a little noise in it.
    assert torch.allclose(latents, clean, atol=0.1)


@pytest.mark.parametrize("name", [name for name, one in SAMPLERS.items() if len(one.sigma_schedules) > 1])
def test_each_sigma_schedule_spaces_the_steps_otherwise(name: str) -> None:
    walks = [tuple(a_sampler(name, schedule).timesteps.tolist()) for schedule in SAMPLERS[name].sigma_schedules]
    assert len(set(walks)) == len(walks)


@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
def test_the_schedule_asked_for_counts_and_not_the_models(flag: str) -> None:
    config: dict[str, Any] = {flag: True}
    plain, other = a_sampler("euler"), a_sampler("euler", **config)
    assert torch.equal(plain.timesteps, other.timesteps)
    assert a_sampler("euler", "karras", **config).timesteps.tolist() == a_sampler("euler", "karras").timesteps.tolist()


@pytest.mark.parametrize("name", [name for name, one in SAMPLERS.items() if "karras" not in one.sigma_schedules])
def test_a_schedule_is_refused_where_the_sampler_does_not_take_it(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name) as refused:
        a_sampler(name, "karras")
    assert refused.value.reason is ErrorReason.UNSUPPORTED_COMBINATION


def test_a_model_that_predicts_something_else_is_incompatible() -> None:
    with pytest.raises(FailedPrecondition, match="flow"):
        a_sampler("euler", prediction_type="flow_prediction")


@pytest.mark.parametrize("name", [name for name, one in SAMPLERS.items() if not one.eta])
def test_eta_changes_nothing_where_it_is_not_read(name: str) -> None:
    plain, with_eta = (a_sampler(name, steps=3, eta=eta) for eta in (0.0, 1.0))
    assert plain.needs_noise == with_eta.needs_noise == SAMPLERS[name].stochastic
