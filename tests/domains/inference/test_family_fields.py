"""The task of a generation follows from its inputs."""

from typing import Any

import msgspec
import pytest

from domains.inference.family_fields import Task, task_of, tasks_of
from domains.model.families import FAMILIES
from tests.domains.inference.on_device.requests import embedded_model, request

PLAIN = request(embedded_model())


@pytest.mark.parametrize(
    ("given", "task"),
    [
        ((), Task.TEXT_TO_IMAGE),
        (("init_image",), Task.IMAGE_TO_IMAGE),
        (("init_image", "mask"), Task.INPAINTING),
        (("init_image", "mask", "outpaint"), Task.OUTPAINTING),
        (("init_image", "outpaint"), Task.OUTPAINTING),
        (("init_image", "mask", "outpaint", "references"), Task.EDITING),
        (("references",), Task.EDITING),
    ],
)
def test_the_task_is_the_one_that_reads_the_most_special_input(given: tuple[str, ...], task: Task) -> None:
    inputs: dict[str, Any] = dict.fromkeys(given, ("given",))
    assert task_of(msgspec.structs.replace(PLAIN, **inputs)) is task


def test_only_families_that_edit_have_that_task() -> None:
    for family in FAMILIES.values():
        assert (Task.EDITING in tasks_of(family)) is bool(family.edits)
        assert {*Task} - {Task.EDITING} <= {*tasks_of(family)}
