"""The table of samplers, and the one that reads it without torch."""

import subprocess
import sys

from domains.inference.samplers import SAMPLERS, SIGMA_SCHEDULES, of_class


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
