"""Brings a picture to a size by a filter."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Filter = Literal["lanczos", "bicubic", "bilinear", "area", "nearest"]

_FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


def resampled(pixels: NDArray[np.uint8], width: int, height: int, by: Filter) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 of exactly this size."""
    return np.array(Image.fromarray(pixels).resize((width, height), _FILTERS[by]))
