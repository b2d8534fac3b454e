"""The samplers behind our scheduler ids."""

import pytest
import torch

from domains.errors import FailedPrecondition, InvalidRequest
from domains.inference.on_device.samplers import Sampler
from domains.inference.schedulers import SCHEDULERS

CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}


@pytest.mark.parametrize("scheduler", list(SCHEDULERS))
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_every_scheduler_walks_as_many_steps_as_asked(scheduler: str, steps: int) -> None:
    assert Sampler(scheduler, CONFIG, steps=steps, karras=False, eta=0.0).steps == steps


@pytest.mark.parametrize("scheduler", list(SCHEDULERS))
def test_a_perfect_denoiser_is_led_to_the_clean_latents(scheduler: str) -> None:
    """The output that names the true x0 at every step must end at it, and every estimate must be it."""
    config = {**CONFIG, "prediction_type": "sample"}
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 8, 8).unbind()
    sampler = Sampler(scheduler, config, steps=12, karras=False, eta=0.0)
    latents = noise * sampler.initial_scale
    for index in range(sampler.steps):
        sampler.scaled(latents, index)
        latents, x0 = sampler.step(clean, latents, index, torch.zeros_like(clean) if sampler.needs_noise else None)
        assert torch.allclose(x0, clean, atol=1e-4)
    # DDIM's last level is the training's first, which has a little noise in it.
    assert torch.allclose(latents, clean, atol=0.1)


@pytest.mark.parametrize("one", [one for one in SCHEDULERS.values() if one.karras], ids=lambda one: one.id)
def test_karras_spaces_the_steps_otherwise(one: object) -> None:
    name = getattr(one, "id", "")
    plain, karras = (Sampler(name, CONFIG, steps=9, karras=flag, eta=0.0).timesteps for flag in (False, True))
    assert not torch.equal(plain, karras)


@pytest.mark.parametrize("name", [name for name, one in SCHEDULERS.items() if not one.karras])
def test_karras_is_refused_where_there_are_no_sigmas(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name):
        Sampler(name, CONFIG, steps=9, karras=True, eta=0.0)


def test_a_model_that_predicts_something_else_is_incompatible() -> None:
    with pytest.raises(FailedPrecondition, match="flow"):
        Sampler("euler", {**CONFIG, "prediction_type": "flow_prediction"}, steps=2, karras=False, eta=0.0)


@pytest.mark.parametrize("name", [name for name, one in SCHEDULERS.items() if not one.eta])
def test_eta_changes_nothing_where_it_is_not_read(name: str) -> None:
    plain, with_eta = (Sampler(name, CONFIG, steps=3, karras=False, eta=eta) for eta in (0.0, 1.0))
    assert plain.needs_noise == with_eta.needs_noise == SCHEDULERS[name].stochastic
