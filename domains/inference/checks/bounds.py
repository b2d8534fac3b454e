"""Compares numbers with the bounds of their fields."""

import math
from collections.abc import Iterator

from domains.errors import Violation
from domains.inference.fields import FIELDS

RATIOS = ("start_ratio", "end_ratio")
"""Names of the two fields of a range of steps."""


def within(path: str, value: float | None, told_as: str = "", advice: str = "") -> Iterator[Violation]:
    """Refuse a number outside the bounds of the field `path`; `told_as` names it if it stands at another path."""
    bounds = FIELDS[path].bounds
    if value is None or bounds is None or (math.isfinite(value) and bounds[0] <= value <= bounds[1]):
        return
    low, high = bounds
    allowed = f"{low:g}..{high:g}" if isinstance(low, float) else f"{low}..{high}"
    text = f"{value} is not within {allowed}{advice}"
    yield Violation(field=told_as or f"generation.{path}", message=text, allowed=allowed)


def range_faults(
    fields: str, told_as: str, names: tuple[str, str], ends: tuple[float | None, float | None], what: str
) -> Iterator[Violation]:
    """Refuse a range of steps whose ends are outside their bounds, or whose end is not after its start.

    `fields`, `told_as`: where the two fields stand in `FIELDS` and in the request. `ends`: shares of the steps, start and
    end; absent: 0 and 1. `what`: beginning of the message, such as `the steps end`.
    """
    wrong = [
        one
        for name, value in zip(names, ends, strict=True)
        for one in within(f"{fields}.{name}", value, f"{told_as}.{name}")
    ]
    yield from wrong
    start, end = ends[0] or 0.0, 1.0 if ends[1] is None else ends[1]
    if not wrong and end <= start:
        message = f"{what} at {end:g}, which is not after their start at {start:g}; give an end after the start"
        yield Violation(field=f"{told_as}.{names[1]}", message=message, allowed=f"more than {start:g}, up to 1")
