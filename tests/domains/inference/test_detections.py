"""Which finds of a detector count: sure enough, neither too small nor too large, the largest first."""

from typing import Any

import pytest
from msgspec.structs import replace

from domains.inference.detections import Find, Wanted, counted

SIZE_PX = (100, 50)
FIND = Find(label="face", confidence=0.75, left_px=3, top_px=4, width_px=20, height_px=25)
"""A tenth of the picture."""


@pytest.mark.parametrize(
    ("wanted", "counts"),
    [
        ({}, True),
        ({"min_confidence": 0.75}, True),
        ({"min_confidence": 0.76}, False),
        ({"min_area": 0.1}, True),
        ({"min_area": 0.101}, False),
        ({"max_area": 0.1}, True),
        ({"max_area": 0.099}, False),
        ({"max_count": 0}, False),
    ],
)
def test_a_find_at_a_bound_counts_and_one_beyond_does_not(wanted: dict[str, Any], counts: bool) -> None:
    assert FIND.area_px2 == 500
    assert counted([FIND], Wanted(**wanted), SIZE_PX) == ((FIND,) if counts else ())


def test_the_largest_count_first_and_of_equal_ones_the_surest() -> None:
    large = replace(FIND, width_px=40)
    sure = replace(FIND, confidence=0.9)
    small = replace(FIND, width_px=10, confidence=1.0)
    found = [small, FIND, sure, large]
    assert counted(found, Wanted(), SIZE_PX) == (large, sure, FIND, small)
    assert counted(found, Wanted(max_count=2), SIZE_PX) == (large, sure)
    unsure = [replace(FIND, confidence=0.49), replace(FIND, confidence=0.5)]
    assert [one.confidence for one in counted(unsure, Wanted(), SIZE_PX)] == [0.5]
