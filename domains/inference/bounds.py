"""Compares numbers with the bounds of their fields."""

import math
from collections.abc import Iterator

from domains.errors import Violation
from domains.inference.fields import FIELDS


def within(path: str, value: float | None, told_as: str = "", advice: str = "") -> Iterator[Violation]:
    """Refuse a number outside the bounds of the field `path`; `told_as` names it if it stands at another path."""
    bounds = FIELDS[path].bounds
    if value is None or bounds is None or (math.isfinite(value) and bounds[0] <= value <= bounds[1]):
        return
    low, high = bounds
    allowed = f"{low:g}..{high:g}" if isinstance(low, float) else f"{low}..{high}"
    text = f"{value} is not within {allowed}{advice}"
    yield Violation(field=told_as or f"generation.{path}", message=text, allowed=allowed)
