"""The table of schedulers, and the one that reads it without torch."""

import subprocess
import sys

from domains.inference.schedulers import SCHEDULERS, of_class


def test_every_id_is_its_entrys_own() -> None:
    assert all(name == scheduler.id for name, scheduler in SCHEDULERS.items())


def test_the_schedulers_of_the_contract_are_there() -> None:
    assert set(SCHEDULERS) == {"euler", "euler_a", "ddim", "dpmpp_2m", "unipc"}
    assert {name for name, scheduler in SCHEDULERS.items() if scheduler.karras} == {"euler", "dpmpp_2m", "unipc"}


def test_the_class_in_a_models_config_names_our_scheduler() -> None:
    assert of_class("DPMSolverMultistepScheduler") == "dpmpp_2m"
    assert of_class("EulerAncestralDiscreteScheduler") == "euler_a"
    assert of_class("SomethingScheduler") == ""


def test_values_are_read_without_torch() -> None:
    check = (
        "import sys, domains.inference.schedulers, domains.inference.outcome, domains.inference.manifest;"
        "sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
