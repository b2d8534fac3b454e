"""Brings a picture to a size."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Fit = Literal["stretch", "cover", "pad"]


def fitted(pixels: NDArray[np.uint8], width: int, height: int, fit: Fit) -> NDArray[np.uint8]:
    """The pixels at exactly this size; unchanged if they have it. Resampled by Lanczos with three lobes.

    `stretch` changes the aspect ratio if needed. `cover` scales until the picture covers the size, and keeps the middle.
    `pad` scales until the picture fits inside, and fills the rest with the colours of its edge.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    match fit:
        case "stretch":
            return _resized(pixels, width, height)
        case "cover":
            size = _scaled(pixels, max(width / pixels.shape[1], height / pixels.shape[0]))
            inner = _resized(pixels, max(size[0], width), max(size[1], height))
            left, top = (inner.shape[1] - width) // 2, (inner.shape[0] - height) // 2
            return np.ascontiguousarray(inner[top : top + height, left : left + width])
        case "pad":
            size = _scaled(pixels, min(width / pixels.shape[1], height / pixels.shape[0]))
            inner = _resized(pixels, min(size[0], width), min(size[1], height))
            left, top = (width - inner.shape[1]) // 2, (height - inner.shape[0]) // 2
            right, bottom = width - inner.shape[1] - left, height - inner.shape[0] - top
            return np.pad(inner, ((top, bottom), (left, right), (0, 0))[: inner.ndim], mode="edge")


def enlarged_as(
    pixels: NDArray[np.uint8], first: tuple[int, int], size: tuple[int, int], fit: Fit
) -> NDArray[np.uint8]:
    """The pixels at `size` (width, height), each at the place where it lies after they are fitted to `first` and these are
    stretched to `size`. No smaller than `first`."""
    if first[0] * size[1] == first[1] * size[0]:
        return fitted(pixels, *size, fit)
    times = max(-(-edge // own) for edge, own in zip(size, first, strict=True))
    return fitted(fitted(pixels, first[0] * times, first[1] * times, fit), *size, "stretch")


def square(pixels: NDArray[np.uint8], edge: int) -> NDArray[np.uint8]:
    """The square in the middle (edge, edge, …), with the shorter side at that length. Bicubic, as the preprocessing of CLIP
    (transformers' CLIPImageProcessor)."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    size = width * edge // short, height * edge // short
    inner = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    top, left = (size[1] - edge) // 2, (size[0] - edge) // 2
    return np.ascontiguousarray(inner[top : top + edge, left : left + edge])


def squeezed(pixels: NDArray[np.uint8], edge: int) -> NDArray[np.uint8]:
    """The whole picture as a square (edge, edge, …). Bicubic, as the preprocessing of SigLIP (transformers'
    SiglipImageProcessor)."""
    return np.array(Image.fromarray(pixels).resize((edge, edge), Image.Resampling.BICUBIC))


def _scaled(pixels: NDArray[np.uint8], scale: float) -> tuple[int, int]:
    """(width, height), at least one pixel."""
    return max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))


def _resized(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
