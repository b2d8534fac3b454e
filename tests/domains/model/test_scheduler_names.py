"""One table of class names serves detection and sampling."""

import diffusers
import pytest

from domains.inference.schedulers import SCHEDULERS
from domains.model.scheduler_names import SCHEDULER_OF_CLASS, classes_of, of_class


def test_every_scheduler_that_is_served_has_its_classes_and_no_other_id_is_named() -> None:
    assert set(SCHEDULER_OF_CLASS.values()) == set(SCHEDULERS)
    for scheduler in SCHEDULERS.values():
        assert scheduler.class_names == classes_of(scheduler.id) != ()


@pytest.mark.parametrize("class_name", SCHEDULER_OF_CLASS)
def test_every_class_is_one_of_diffusers(class_name: str) -> None:
    assert hasattr(diffusers, class_name)


def test_an_unknown_class_has_no_id() -> None:
    assert of_class("PNDMScheduler") == of_class("") == ""
    assert classes_of("pndm") == ()
