"""What a detector finds in a picture."""

from collections.abc import Sequence

import msgspec

from domains.inference import limits

FACE = "face"
LABELS = (FACE,)
"""What the detectors of this server tell."""
DEFAULT_CONFIDENCE = 0.5
MOST_FINDS = limits.FINDS[1]
"""Most findings that count, if a request does not say it."""


class Find(msgspec.Struct, frozen=True, kw_only=True):
    """One thing in a picture: what it is, and the box around it in pixels."""

    label: str
    confidence: float
    """0..1."""
    left_px: int
    top_px: int
    width_px: int
    height_px: int

    @property
    def area_px2(self) -> int:
        """Pixels of the box."""
        return self.width_px * self.height_px


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for, and what counts as found."""

    label: str = FACE
    min_confidence: float = DEFAULT_CONFIDENCE
    """0..1."""
    min_area: float = 0.0
    """Smallest share of the picture's area that a box may have, 0..1."""
    max_area: float = 1.0
    """Largest share."""
    max_count: int = MOST_FINDS
    """The most findings that count, the largest boxes first."""


def counted(found: Sequence[Find], wanted: Wanted, size_px: tuple[int, int]) -> tuple[Find, ...]:
    """The findings that count in a picture of a size (width, height), the largest boxes first; of equal ones, the surest."""
    whole = size_px[0] * size_px[1]
    able = [
        one
        for one in found
        if one.confidence >= wanted.min_confidence and wanted.min_area <= one.area_px2 / whole <= wanted.max_area
    ]
    return tuple(sorted(able, key=lambda one: (-one.area_px2, -one.confidence))[: wanted.max_count])
