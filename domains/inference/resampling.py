"""How pictures and latents get another size."""

from enum import StrEnum


class Resampling(StrEnum):
    """A filter, by the contract's name."""

    LANCZOS = "lanczos"
    """Three lobes. For pixels alone."""
    BICUBIC = "bicubic"
    BILINEAR = "bilinear"
    AREA = "area"
    """The mean over the area."""
    NEAREST = "nearest"


OF_LATENTS = (Resampling.BICUBIC, Resampling.BILINEAR, Resampling.AREA, Resampling.NEAREST)
"""Filters for latents, the default first."""
