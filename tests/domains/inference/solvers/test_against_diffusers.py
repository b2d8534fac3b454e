"""Each table walks as diffusers' scheduler of the same name does, with what configs of real models contain."""

from collections.abc import Iterator, Mapping
from typing import Any

import diffusers.schedulers
import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from torch import Tensor

from domains.inference.samplers import SAMPLERS, SIGMA_SCHEDULES
from domains.inference.solvers.flow_sigmas import Flow, flow_sigmas
from domains.inference.solvers.flow_walk import flow_walk
from domains.inference.solvers.plan import Plan
from domains.inference.solvers.table import SOLVERS
from domains.inference.solvers.trained_noise import TrainedNoise
from domains.inference.solvers.walk import Options
from domains.model.sampler_names import FLAG_OF_SCHEDULE
from tests.domains.inference.solvers import instead_of_scipy
from tests.domains.inference.solvers.walking import SD1, denoiser, gap, noises, planned, walked

theirs_of: Any = diffusers.schedulers
"""Untyped: the package imports its classes late."""
pytestmark = pytest.mark.filterwarnings("ignore")  # Diffusers' schedulers warn at every step.
TOLERANCE = 1e-4
CLASSES: Mapping[str, tuple[Any, Mapping[str, object]]] = {
    "euler": (theirs_of.EulerDiscreteScheduler, {}),
    "euler_a": (theirs_of.EulerAncestralDiscreteScheduler, {}),
    "heun": (theirs_of.HeunDiscreteScheduler, {}),
    "dpm2": (theirs_of.KDPM2DiscreteScheduler, {}),
    "dpm2_a": (theirs_of.KDPM2AncestralDiscreteScheduler, {}),
    "dpmpp_2m": (theirs_of.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "dpmpp_2m_sde": (theirs_of.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "ddim": (theirs_of.DDIMScheduler, {}),
    "ddpm": (theirs_of.DDPMScheduler, {}),
    "pndm": (theirs_of.PNDMScheduler, {"skip_prk_steps": True}),
    "lms": (LMSDiscreteScheduler, {}),
    "deis": (theirs_of.DEISMultistepScheduler, {}),
    "unipc": (theirs_of.UniPCMultistepScheduler, {}),
    "lcm": (theirs_of.LCMScheduler, {"set_alpha_to_one": True}),
    "tcd": (theirs_of.TCDScheduler, {"set_alpha_to_one": True}),
}
"""Diffusers' class of each sampler, and what makes it that sampler. The others: `test_against_k_diffusion`."""
ETA = {"ddim": 0.7, "tcd": 0.3}
THEIRS = ("normal", *FLAG_OF_SCHEDULE)
WITHOUT_SCHEDULES = {"euler_a"}
"""Diffusers' class takes no sigma schedule, ours does."""
WAYS = [
    (name, schedule)
    for name in CLASSES
    for schedule in SAMPLERS[name].sigma_schedules
    if schedule == "normal" or (schedule in THEIRS and name not in WITHOUT_SCHEDULES)
]
CONFIGS = [("epsilon", "leading"), ("epsilon", "linspace"), ("epsilon", "trailing"), ("v_prediction", "leading")]
CASES = [
    *((name, "normal", *config) for name in CLASSES for config in CONFIGS),
    *((*way, *CONFIGS[place % len(CONFIGS)]) for place, way in enumerate(way for way in WAYS if way[1] != "normal")),
]
"""Other schedules than the usual one meet a config each, in turn: each config meets every schedule with some sampler."""
STEPS = (1, 2, 3, 16)


@pytest.fixture(autouse=True)
def own_noise(monkeypatch: pytest.MonkeyPatch) -> list[Iterator[Tensor]]:
    """Diffusers' schedulers draw from the same noise as ours, and ask no scipy."""
    instead_of_scipy.use_in_diffusers(monkeypatch)
    drawn: list[Iterator[Tensor]] = []

    def draw(*_: object, **__: object) -> Tensor:
        return next(drawn[-1])

    for scheduler, _ in CLASSES.values():
        monkeypatch.setattr(f"{scheduler.__module__}.randn_tensor", draw, raising=False)
    return drawn


def theirs(name: str, config: Mapping[str, Any], schedule: str, steps: int, drawn: list[Iterator[Tensor]]) -> Tensor:
    """The final latents by diffusers' class."""
    scheduler_class, options = CLASSES[name]
    flags = {FLAG_OF_SCHEDULE[schedule]: True} if schedule != "normal" else {}
    scheduler = scheduler_class.from_config({**config, **options, **flags})
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # Else it looks its place up by a timestep, which may occur twice.
    drawn.append(noises())
    latents = next(drawn[-1]) * scheduler.init_noise_sigma
    extra = {"eta": ETA[name]} if name in ETA else {}
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        output = denoiser(scaled, timestep)
        latents = scheduler.step(output, timestep, latents, return_dict=False, **extra)[0]
    return latents


@pytest.mark.parametrize(("name", "schedule", "prediction", "spacing"), CASES)
def test_the_latents_are_diffusers(
    name: str, schedule: str, prediction: str, spacing: str, own_noise: list[Iterator[Tensor]]
) -> None:
    config = {**SD1, "prediction_type": prediction, "timestep_spacing": spacing}
    if name in ("lcm", "tcd"):
        config["set_alpha_to_one"] = True
    for steps in STEPS:
        if steps == 1 and name == "deis" and schedule != "normal":
            continue  # There diffusers' only step ends where it begins.
        ours = walked(planned(name, config, schedule, steps, ETA.get(name)))
        assert gap(ours, theirs(name, config, schedule, steps, own_noise)) < TOLERANCE, steps


OPTIONS: list[tuple[str, dict[str, object]]] = [
    *((name, {"steps_offset": 0}) for name in CLASSES),
    *((name, {"beta_schedule": "linear"}) for name in CLASSES),
    # Diffusers' other noisy steps are no numbers there.
    *((name, {"beta_schedule": "squaredcos_cap_v2"}) for name in CLASSES if name not in ("euler_a", "dpm2_a")),
    *((name, {"trained_betas": [0.001 + 0.00001 * index for index in range(1000)]}) for name in ("euler", "unipc")),
    *((name, {"num_train_timesteps": 400}) for name in CLASSES),
    *((name, {"prediction_type": "sample"}) for name in ("euler", "heun", "lms", "ddim", "dpmpp_2m", "unipc", "deis")),
    *((name, {"final_sigmas_type": "sigma_min"}) for name in ("euler", "dpmpp_2m", "dpmpp_2m_sde", "unipc")),
    *((name, {"set_alpha_to_one": True}) for name in ("ddim", "pndm")),
    *(
        (name, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"})
        for name in ("euler", "euler_a", "ddim", "ddpm", "dpmpp_2m", "unipc", "lcm", "tcd")
    ),
    *((name, {"solver_type": "heun"}) for name in ("dpmpp_2m", "dpmpp_2m_sde")),
    *((name, {"euler_at_final": True, "final_sigmas_type": "sigma_min"}) for name in ("dpmpp_2m", "dpmpp_2m_sde")),
    *((name, {"lower_order_final": False, "final_sigmas_type": "sigma_min"}) for name in ("dpmpp_2m", "unipc")),
    *(("dpmpp_2m", {"lambda_min_clipped": least}) for least in (-3.0, -1.0)),
    ("unipc", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),  # Else diffusers' end is no number.
    ("unipc", {"solver_order": 1}),
    ("unipc", {"solver_order": 3}),
    ("unipc", {"disable_corrector": [0, 2]}),
    ("deis", {"solver_order": 1}),
    ("deis", {"solver_order": 3}),
    ("ddpm", {"variance_type": "fixed_large", "steps_offset": 0}),  # Else diffusers ends with noise.
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value).replace(" ", "")[:60])
def test_the_models_own_options_count_as_diffusers_counts_them(
    name: str, options: dict[str, object], own_noise: list[Iterator[Tensor]]
) -> None:
    config = {**SD1, **options}
    if name in ("lcm", "tcd"):
        config["set_alpha_to_one"] = True
    # With σ of 20,000 diffusers' float32 latents, clean + σ·noise, are rounded as coarsely.
    tolerance = 10 * TOLERANCE if "squaredcos_cap_v2" in options.values() else TOLERANCE
    for steps in (4, 16):
        ours = walked(planned(name, config, "normal", steps, ETA.get(name)))
        assert gap(ours, theirs(name, config, "normal", steps, own_noise)) < tolerance, steps


# Classes that are left out have betas of their own, or end otherwise for what they distil; each model's config says these.
@pytest.mark.parametrize("name", [name for name in CLASSES if name not in ("lcm", "tcd", "heun", "dpm2", "dpm2_a")])
def test_a_config_that_says_nothing_means_what_it_means_to_diffusers(
    name: str, own_noise: list[Iterator[Tensor]]
) -> None:
    config = {"clip_sample": False}
    ours = walked(planned(name, config, "normal", 4, ETA.get(name)))
    assert gap(ours, theirs(name, config, "normal", 4, own_noise)) < TOLERANCE


@pytest.mark.parametrize("schedule", ["exponential", "beta"])
def test_levels_between_trained_ones_are_told_as_diffusers_tells_them(schedule: str) -> None:
    for steps in (3, 10, 16):
        reference = theirs_of.DPMSolverMultistepScheduler.from_config({**SD1, FLAG_OF_SCHEDULE[schedule]: True})
        reference.set_timesteps(steps)
        lines = planned("dpmpp_2m", SD1, schedule, steps).lines
        assert [line.timestep for line in lines] == reference.timesteps.tolist()


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", list(ETA))
def test_eta_counts(name: str, eta: float, monkeypatch: pytest.MonkeyPatch, own_noise: list[Iterator[Tensor]]) -> None:
    monkeypatch.setitem(ETA, name, eta)
    config = {**SD1, "set_alpha_to_one": True}
    ours = walked(planned(name, config, "normal", 6, eta))
    assert gap(ours, theirs(name, config, "normal", 6, own_noise)) < TOLERANCE


@pytest.mark.parametrize("steps", [1, 2, 7, 28])
@pytest.mark.parametrize(
    ("name", "scheduler"),
    [("euler", theirs_of.FlowMatchEulerDiscreteScheduler), ("heun", theirs_of.FlowMatchHeunDiscreteScheduler)],
)
def test_flow_models_are_walked_as_diffusers_walks_them(name: str, scheduler: Any, steps: int) -> None:
    reference = scheduler(shift=3.0)
    reference.set_timesteps(steps)
    sigmas = reference.sigmas[:-1]
    walk = flow_walk(sigmas[::2].tolist() if name == "heun" else sigmas.tolist(), Options())
    plan = Plan(lines=tuple(SOLVERS[name].lines(walk)), initial_scale=walk.initial_scale)
    latents = next(noises())
    for timestep in reference.timesteps:
        latents = reference.step(denoiser(latents, timestep), timestep, latents, return_dict=False)[0]
    assert gap(walked(plan), latents) < TOLERANCE


FLOW_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shifted": {"shift": 3.0},
    "growing": {"use_dynamic_shifting": True, "base_shift": 0.4, "max_shift": 1.3, "max_image_seq_len": 8192},
    "growing_linearly": {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    "stretched": {"use_dynamic_shifting": True, "shift_terminal": 0.02},
    "short": {"num_train_timesteps": 100},
}


@pytest.mark.parametrize("schedule", ["normal", "karras", "exponential", "beta"])
@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("options", list(FLOW_OPTIONS.values()), ids=list(FLOW_OPTIONS))
def test_flow_models_visit_the_sigmas_that_diffusers_visits(options: dict[str, Any], even: bool, schedule: str) -> None:
    flags = {flag: name == schedule for name, flag in FLAG_OF_SCHEDULE.items()}
    reference: Any = theirs_of.FlowMatchEulerDiscreteScheduler(**options, **flags)
    for steps in (2, 7, 30):
        named = {"sigmas": np.linspace(1.0, 1 / steps, steps)} if even else {"num_inference_steps": steps}
        mu = calculate_shift(1000, *(reference.config[name] for name in SHIFT_OPTIONS))
        reference.set_timesteps(**named, **({"mu": mu} if options.get("use_dynamic_shifting") else {}))
        found = flow_sigmas(options, schedule, steps, Flow(even=even, tokens=1000))
        assert np.abs(found - reference.sigmas[:-1].numpy()).max() < 1e-5, steps


SHIFT_OPTIONS = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")


def test_another_coefficient_would_show(own_noise: list[Iterator[Tensor]]) -> None:
    latents = theirs("euler", SD1, "normal", 5, own_noise)
    assert gap(walked(planned("euler", SD1, "karras", 5)), latents) > 100 * TOLERANCE
    assert gap(walked(planned("heun", SD1, "normal", 5)), latents) > 100 * TOLERANCE


def test_every_sampler_is_compared_with_something() -> None:
    from tests.domains.inference.solvers.test_against_k_diffusion import STEPPERS

    assert {*CLASSES, *STEPPERS} == set(SAMPLERS) == set(SOLVERS)
    assert set(THEIRS) <= set(SIGMA_SCHEDULES)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("sampler", CLASSES)
def test_a_config_without_betas_has_those_of_its_class(sampler: str) -> None:
    theirs = CLASSES[sampler][0]()
    ours = TrainedNoise({"_class_name": type(theirs).__name__})
    np.testing.assert_allclose(ours.alphas**2, theirs.alphas_cumprod.numpy(), rtol=TOLERANCE)
