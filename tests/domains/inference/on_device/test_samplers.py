"""The samplers behind our ids."""

from typing import Any

import msgspec
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest
from domains.inference.generation import Generation, Sampling
from domains.inference.on_device.samplers import Sampler, try_config
from domains.inference.resolve import resolve
from domains.inference.samplers import SAMPLERS, SIGMA_SCHEDULES
from domains.model.model import Model, ModelState

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


SPACINGS = [(spacing, offset) for spacing in ("leading", "trailing", "linspace") for offset in (0, 1, 10)]


@pytest.mark.parametrize(("spacing", "offset"), SPACINGS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_number_of_steps_is_walked_with_every_spacing_and_offset(name: str, spacing: str, offset: int) -> None:
    for steps in (*range(1, 1000, 83), 990, 997, 998, 999, 1000):
        assert a_sampler(name, steps=steps, timestep_spacing=spacing, steps_offset=offset).steps == steps


@pytest.mark.parametrize(("spacing", "offset"), SPACINGS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_thousand_steps_end_in_numbers_with_every_spacing_and_offset(name: str, spacing: str, offset: int) -> None:
    sampler = a_sampler(name, steps=1000, timestep_spacing=spacing, steps_offset=offset)
    latents = clean = torch.ones(1, 4, 1, 1) * sampler.initial_scale
    for index in range(sampler.steps):
        sampler.scaled(latents, index)
        latents, clean = sampler.step(
            latents / 10, latents, index, torch.zeros_like(latents) if sampler.needs_noise else None
        )
    assert torch.isfinite(latents).all()
    assert torch.isfinite(clean).all()


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc"])
def test_more_steps_than_the_model_was_trained_with_are_refused_with_the_range(name: str) -> None:
    assert a_sampler(name, steps=50, num_train_timesteps=50).steps == 50
    with pytest.raises(InvalidRequest) as refused:
        a_sampler(name, steps=51, num_train_timesteps=50)
    (violation,) = refused.value.violations
    assert (violation.field, violation.allowed) == ("generation.sampling.steps", "1..50")


def test_the_models_own_spacing_counts_where_it_can_be_walked() -> None:
    ends = {
        spacing: a_sampler("ddim", timestep_spacing=spacing).timesteps[0].item() for spacing in ("leading", "trailing")
    }
    assert ends == {"leading": 889, "trailing": 999}


@pytest.mark.parametrize(
    "change", [{"thresholding": True}, {"use_beta_sigmas": True}, {"clip_sample": True}, {}], ids=str
)
def test_a_config_that_samplers_can_use_passes_the_trial(change: dict[str, Any]) -> None:
    try_config(CONFIG | change)


@pytest.mark.parametrize(
    "change",
    [{"beta_schedule": "x"}, {"solver_type": "x"}, {"beta_start": "a"}, {"flow_shift": 0}, {"final_sigmas_type": 1}],
    ids=str,
)
def test_a_config_that_no_sampler_can_use_fails_the_trial_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        try_config(CONFIG | change)
    assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE
    assert (refused.value.facts["file"], refused.value.facts["field"]) == ("scheduler/scheduler_config.json", *change)


@pytest.mark.parametrize("error", [ImportError("scipy"), IndexError("7"), NotImplementedError("x")], ids=repr)
def test_whatever_diffusers_raises_for_a_config_is_incompatible(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(DDIMScheduler, "step", fail)
    with pytest.raises(FailedPrecondition, match=str(error)) as refused:
        try_config(CONFIG)
    assert (refused.value.reason, refused.value.facts["sampler"]) == (ErrorReason.MODEL_INCOMPATIBLE, "ddim")


def test_unipc_refuses_to_threshold() -> None:
    with pytest.raises(InvalidRequest) as refused:
        a_sampler("unipc", thresholding=True)
    assert refused.value.reason is ErrorReason.UNSUPPORTED_COMBINATION


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


SCANNED = Model(
    id="m",
    display_name="M",
    family="sd1",
    folder="/m",
    components=(),
    size_bytes=1,
    sha256="0" * 64,
    state=ModelState.AVAILABLE,
    native_width_px=64,
    native_height_px=64,
)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", SIGMA_SCHEDULES)
def test_what_a_sampler_would_refuse_is_refused_before_the_job_waits(sampler: str, schedule: str) -> None:
    if schedule not in SAMPLERS[sampler].sigma_schedules:
        return
    model = msgspec.structs.replace(SCANNED, train_steps=30)
    asked = Generation(prompt="an owl", sampling=Sampling(sampler=sampler, sigma_schedule=schedule, steps=31))
    config = {"num_train_timesteps": 30}
    try:
        Sampler(sampler, config, sigma_schedule=schedule, steps=31, eta=None)
        refused = None
    except InvalidRequest as error:
        refused = error
    if refused is None:
        assert resolve(asked, model).steps == 31
    else:
        with pytest.raises(InvalidRequest) as told:
            resolve(asked, model)
        assert told.value.violations == refused.violations
        assert (told.value.reason, told.value.violations[0].allowed) == (refused.reason, "1..30")
    assert resolve(asked, SCANNED).steps == 31, "the scan does not know the range"
