"""Faults of a request for a part of the steps, each by its field; and which steps a request computes."""

from typing import Any

import pytest

from domains.errors import ErrorReason, InvalidRequest
from domains.inference.generation import Generation, Sampling
from domains.inference.init_image import InitImage
from domains.inference.input_picture import InputPicture
from domains.inference.masks import InpaintMask, Outpaint
from domains.inference.resolution.request_files import RequestFiles
from domains.inference.resolution.resolve import resolve
from domains.inference.step_range import StepRange
from tests.domains.inference.on_device.requests import embedded_model

PICTURE = InputPicture(blob_id="b-1", sha256="0" * 64, width_px=64, height_px=64)
INVALID, TOGETHER = str(ErrorReason.INVALID_FIELD), str(ErrorReason.UNSUPPORTED_COMBINATION)


def asked(part: dict[str, Any], strength: float | None = None, *, picture: bool = True, **changes: Any) -> Generation:
    init = InitImage(blob_id="b-1", strength=strength) if picture else None
    sampling = Sampling(steps=4, part=StepRange(**part))
    return Generation(prompt="", sampling=sampling, init_image=init, **changes)


def resolved(generation: Generation) -> Any:
    picture = None if generation.init_image is None else PICTURE
    return resolve(
        generation,
        embedded_model(),
        RequestFiles(picture=picture, mask=None if generation.mask is None else PICTURE),
    )


WRONG: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"first_step": -1}, {}, INVALID, "first_step"),
    ({"first_step": 1000}, {}, INVALID, "first_step"),
    ({"last_step": 0}, {}, INVALID, "last_step"),
    ({"first_step": 2, "last_step": 2}, {}, INVALID, "last_step"),
    ({"first_step": 4}, {}, TOGETHER, "first_step"),
    ({"last_step": 5}, {}, TOGETHER, "last_step"),
    ({"last_step": 2}, {"strength": 0.5}, TOGETHER, "last_step"),
    ({"first_step": 2}, {"strength": 0.5}, TOGETHER, "first_step"),
    ({"first_step": 2}, {"outpaint": Outpaint(left_px=64)}, TOGETHER, "first_step"),
    ({"add_noise": False}, {"picture": False}, TOGETHER, "add_noise"),
    ({"add_noise": False}, {"mask": InpaintMask(blob_id="b-2")}, TOGETHER, "add_noise"),
]


@pytest.mark.parametrize(("part", "changes", "reason", "field"), WRONG, ids=str)
def test_steps_that_cannot_be_computed_are_refused_by_name(
    part: dict[str, Any], changes: dict[str, Any], reason: str, field: str
) -> None:
    with pytest.raises(InvalidRequest) as told:
        resolved(asked(part, **changes))
    assert str(told.value.reason) == reason
    assert [one.field for one in told.value.violations] == [f"generation.sampling.{field}"]


@pytest.mark.parametrize(
    ("part", "strength", "allowed"),
    [({"first_step": 4}, None, "0..3"), ({"last_step": 5}, None, "1..4"), ({"last_step": 2}, 0.5, "3..4")],
)
def test_steps_beyond_the_walk_are_told_with_those_there_are(
    part: dict[str, Any], strength: float | None, allowed: str
) -> None:
    with pytest.raises(InvalidRequest) as told:
        resolved(asked(part, strength))
    (violation,) = told.value.violations
    assert violation.allowed == allowed
    assert strength is not None or f"not within {allowed}" in violation.message


VISITED: list[tuple[dict[str, Any], dict[str, Any], range]] = [
    ({}, {"picture": False}, range(4)),
    ({}, {}, range(1, 4)),
    ({"last_step": 3}, {}, range(1, 3)),
    ({"first_step": 2}, {}, range(2, 4)),
    ({"first_step": 0, "last_step": 3}, {}, range(3)),
    ({"first_step": 3}, {"picture": False}, range(3, 4)),
    ({"last_step": 3}, {"outpaint": Outpaint(left_px=64)}, range(3)),
    ({}, {"strength": 0.0}, range(4, 4)),
]


@pytest.mark.parametrize(("part", "changes", "steps"), VISITED, ids=str)
def test_the_computed_steps_are_those_that_are_asked_for(
    part: dict[str, Any], changes: dict[str, Any], steps: range
) -> None:
    found = resolved(asked(part, **changes))
    assert (found.visited, found.computed_steps) == (steps, len(steps))


def test_a_first_step_stands_for_the_strength_that_leaves_as_many_steps() -> None:
    assert resolved(asked({"first_step": 3})).init_image.strength == 0.25
