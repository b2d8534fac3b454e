"""The table of samplers, and the one that reads it without torch."""

import subprocess
import sys
from typing import Any

import pytest
from msgspec.structs import replace

from domains.inference.guidance import default_distilled, default_guidance
from domains.inference.samplers import (
    SAMPLERS,
    SIGMA_SCHEDULES,
    SamplerEntry,
    most_steps,
    most_trained_steps,
    of_class,
    sampler_of,
    schedule_of,
    schedules_of,
    walkers_of,
)
from tests.domains.inference.on_device.requests import embedded_model


def test_every_id_is_its_entrys_own() -> None:
    assert all(name == sampler.id for name, sampler in SAMPLERS.items())


def test_the_samplers_of_the_contract_are_there() -> None:
    bound = {"ddim", "ddpm", "pndm", "lcm", "tcd"}
    free = {"euler", "euler_a", "heun", "dpm2", "dpm2_a", "dpmpp_2s_a", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde"}
    free |= {"dpmpp_3m_sde", "lms", "deis", "unipc", "res_multistep"}
    assert set(SAMPLERS) == bound | free
    assert {name for name, one in SAMPLERS.items() if set(one.sigma_schedules) == set(SIGMA_SCHEDULES)} == free
    assert {name for name, one in SAMPLERS.items() if one.sigma_schedules == ("normal",)} == bound


def test_every_sampler_takes_the_normal_schedule_and_none_that_has_no_name() -> None:
    for sampler in SAMPLERS.values():
        assert {"normal"} <= set(sampler.sigma_schedules) <= set(SIGMA_SCHEDULES)


def test_the_class_in_a_models_config_names_our_sampler() -> None:
    assert of_class("DPMSolverMultistepScheduler") == "dpmpp_2m"
    assert of_class("EulerAncestralDiscreteScheduler") == "euler_a"
    assert of_class("SomethingScheduler") == ""


def test_values_are_read_without_torch() -> None:
    check = (
        "import sys, domains.inference.samplers, domains.inference.solvers.plan;"
        "import domains.inference.outcome, domains.inference.manifest;"
        "sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.parametrize(
    ("facts", "options"),
    [
        ({}, ("timestep_spacing",)),
        ({"eta": True}, ("eta", "timestep_spacing")),
        ({"ordered": True}, ("solver_order", "timestep_spacing")),
        ({"most_steps": 50}, ()),
        ({"sigma_schedules": ("normal", "karras")}, ("timestep_spacing", "sigmas", "timesteps")),
    ],
)
def test_a_sampler_reads_the_options_that_its_facts_say(facts: dict[str, Any], options: tuple[str, ...]) -> None:
    assert SamplerEntry(id="x", display_name="X", recommended_steps=1, **facts).options == options


@pytest.mark.parametrize(
    ("sampler", "schedule", "trained", "most"),
    [
        ("ddim", "normal", 1000, 1000),
        ("ddim", "normal", 0, None),
        ("ddim", "normal", None, None),
        ("euler", "normal", 1000, None),
        ("euler", "simple", 1000, 1000),
        ("dpmpp_2m", "karras", 1000, None),
        ("dpmpp_2m", "normal", 1000, 1000),
        ("lcm", "normal", 1000, 50),
        ("lcm", "normal", 10, 10),
        ("lcm", "normal", None, 50),
    ],
)
def test_steps_are_bounded_by_trained_ones_and_by_the_sampler(
    sampler: str, schedule: str, trained: int | None, most: int | None
) -> None:
    assert most_trained_steps(trained, sampler, schedule) == most
    model = replace(embedded_model(), train_steps=trained or 0)
    assert most_steps(model, sampler, schedule) == most
    assert most_steps(replace(model, prediction_type="flow"), sampler, schedule) is None


def test_a_models_own_sampler_and_schedule_count_where_they_can_walk_it() -> None:
    model = replace(embedded_model(), default_sampler="ddim", default_sigma_schedule="karras")
    assert (sampler_of(model), schedule_of(model, "ddim"), schedule_of(model, "euler")) == ("ddim", "normal", "karras")
    flow = replace(model, prediction_type="flow", default_sigma_schedule="sgm_uniform")
    assert (sampler_of(flow), schedule_of(flow, "euler")) == ("euler", "normal")
    assert schedule_of(replace(flow, prediction_type="epsilon"), "euler") == "sgm_uniform"
    assert walkers_of(flow=True) == ("euler", "heun")
    assert schedules_of(flow=True) == ("normal", "karras", "exponential", "beta")
    assert schedules_of(flow=False) == tuple(SIGMA_SCHEDULES)


@pytest.mark.parametrize(
    ("family", "variant", "guidance", "distilled"),
    [
        ("sd1", "", 5.0, None),
        ("sdxl", "", 5.0, None),
        ("flux1", "", 1.0, 3.5),
        ("flux1", "inpainting", 1.0, 30.0),
        ("flux1", "schnell", 1.0, None),
        ("flux2", "", 1.0, 4.0),
    ],
)
def test_a_request_without_guidance_has_what_its_model_was_published_with(
    family: str, variant: str, guidance: float, distilled: float | None
) -> None:
    model = replace(embedded_model(), family=family, variant=variant)
    assert (default_guidance(model), default_distilled(model)) == (guidance, distilled)
