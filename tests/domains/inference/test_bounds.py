"""Bounds of numbers and of ranges of steps, at and beyond them."""

import math

import pytest

from domains.inference.checks.bounds import RATIOS, range_faults, within


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("sampling.steps", 1, None),
        ("sampling.steps", 1000, None),
        ("sampling.steps", None, None),
        ("sampling.steps", 0, ("0 is not within 1..1000", "1..1000")),
        ("sampling.steps", 1001, ("1001 is not within 1..1000", "1..1000")),
        ("sampling.guidance_scale", 0.0, None),
        ("sampling.guidance_scale", 50.0, None),
        ("sampling.guidance_scale", -0.5, ("-0.5 is not within 0..50", "0..50")),
        ("sampling.guidance_scale", 50.5, ("50.5 is not within 0..50", "0..50")),
        ("sampling.guidance_scale", math.nan, ("nan is not within 0..50", "0..50")),
        ("sampling.guidance_scale", math.inf, ("inf is not within 0..50", "0..50")),
        ("prompt", 5, None),
    ],
)
def test_a_number_may_be_at_its_bounds(path: str, value: float | None, told: tuple[str, str] | None) -> None:
    found = [*within(path, value)]
    assert [(one.field, one.message, one.allowed) for one in found] == ([(f"generation.{path}", *told)] if told else [])


def test_another_place_and_advice_are_told() -> None:
    (one,) = within("sampling.steps", 0, "generation.hires_pass.steps", "; leave it out")
    assert (one.field, one.message) == ("generation.hires_pass.steps", "0 is not within 1..1000; leave it out")


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        (None, None, []),
        (0.0, 1.0, []),
        (None, 0.5, []),
        (0.5, None, []),
        (0.25, 0.5, []),
        (0.999, None, []),
        (None, 0.001, []),
        (0.5, 0.5, ["end_ratio: more than 0.5, up to 1"]),
        (0.5, 0.25, ["end_ratio: more than 0.5, up to 1"]),
        (1.0, None, ["start_ratio: 0..0.999"]),
        (None, 0.0, ["end_ratio: 0.001..1"]),
        (1.0, 0.0, ["start_ratio: 0..0.999", "end_ratio: 0.001..1"]),
    ],
)
def test_a_range_ends_after_its_start(start: float | None, end: float | None, told: list[str]) -> None:
    found = [*range_faults("loras", "generation.loras[2]", RATIOS, (start, end), "the steps end")]
    assert [f"{one.field.removeprefix('generation.loras[2].')}: {one.allowed}" for one in found] == told
