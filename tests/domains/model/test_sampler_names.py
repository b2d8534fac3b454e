"""One table of class names serves detection and sampling."""

import diffusers
import pytest

from domains.inference.samplers import SAMPLERS
from domains.model.sampler_names import FLAG_OF_SCHEDULE, SAMPLER_OF_CLASS, of_class, schedule_of

WITHOUT_CLASS = {"dpmpp_2s_a", "dpmpp_2m_sde", "dpmpp_3m_sde", "res_multistep"}
"""Diffusers has none for them, or one that a config of another sampler names too."""


def test_every_sampler_that_is_served_has_its_classes_and_no_other_id_is_named() -> None:
    assert set(SAMPLER_OF_CLASS.values()) == set(SAMPLERS) - WITHOUT_CLASS


@pytest.mark.parametrize("class_name", SAMPLER_OF_CLASS)
def test_every_class_is_one_of_diffusers(class_name: str) -> None:
    assert hasattr(diffusers, class_name)


def test_an_unknown_class_has_no_id() -> None:
    assert of_class("IPNDMScheduler") == of_class("") == ""


@pytest.mark.parametrize(("schedule", "flag"), FLAG_OF_SCHEDULE.items())
def test_a_models_own_schedule_is_read_from_its_flag(schedule: str, flag: str) -> None:
    assert (schedule_of({flag: True}), schedule_of({flag: False})) == (schedule, "normal")


def test_a_config_without_flags_asks_for_the_normal_schedule() -> None:
    assert schedule_of({"_class_name": "EulerDiscreteScheduler"}) == "normal"
