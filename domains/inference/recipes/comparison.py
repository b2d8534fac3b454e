"""Compares two pictures, pixel by pixel."""

import math
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LARGEST = 255


class Verdict(StrEnum):
    """How two pictures compare."""

    IDENTICAL = "identical"
    WITHIN_TOLERANCE = "within_tolerance"
    DIFFERENT = "different"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The difference of two pictures."""

    verdict: Verdict
    max_difference: int
    """0..255; 255 for pictures of two sizes."""
    mean_difference: float
    different_pixels_ratio: float
    psnr_db: float | None
    """None: the pictures are identical."""


def compared(first: "NDArray[np.uint8]", second: "NDArray[np.uint8]", tolerance: int) -> Comparison:
    """Compare (height, width, 3) with the same. Pictures of two sizes differ in every pixel."""
    import numpy as np

    if first.shape != second.shape:
        return Comparison(
            verdict=Verdict.DIFFERENT,
            max_difference=_LARGEST,
            mean_difference=float(_LARGEST),
            different_pixels_ratio=1.0,
            psnr_db=0.0,
        )
    gap = np.abs(first.astype(np.int16) - second)
    most, square = int(gap.max()), float(np.square(gap, dtype=np.float64).mean())
    verdict = Verdict.WITHIN_TOLERANCE if most <= tolerance else Verdict.DIFFERENT
    return Comparison(
        verdict=verdict if most else Verdict.IDENTICAL,
        max_difference=most,
        mean_difference=float(gap.mean()),
        different_pixels_ratio=float((gap.max(-1) > 0).mean()),
        psnr_db=10 * math.log10(_LARGEST**2 / square) if most else None,
    )
