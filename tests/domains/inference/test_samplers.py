"""The table of samplers, and the one that reads it without torch."""

import subprocess
import sys

from domains.inference.samplers import SAMPLERS, SIGMA_SCHEDULES, of_class


def test_every_id_is_its_entrys_own() -> None:
    assert all(name == sampler.id for name, sampler in SAMPLERS.items())


def test_the_samplers_of_the_contract_are_there() -> None:
    assert set(SAMPLERS) == {"euler", "euler_a", "ddim", "dpmpp_2m", "unipc"}
    able = {name for name, sampler in SAMPLERS.items() if set(sampler.sigma_schedules) == set(SIGMA_SCHEDULES)}
    assert able == {"euler", "dpmpp_2m", "unipc"}


def test_every_sampler_takes_the_normal_schedule_and_none_that_has_no_name() -> None:
    for sampler in SAMPLERS.values():
        assert {"normal"} <= set(sampler.sigma_schedules) <= set(SIGMA_SCHEDULES)


def test_the_class_in_a_models_config_names_our_sampler() -> None:
    assert of_class("DPMSolverMultistepScheduler") == "dpmpp_2m"
    assert of_class("EulerAncestralDiscreteScheduler") == "euler_a"
    assert of_class("SomethingScheduler") == ""


def test_values_are_read_without_torch() -> None:
    check = (
        "import sys, domains.inference.samplers, domains.inference.outcome, domains.inference.manifest;"
        "sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
