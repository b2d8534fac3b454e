"""Masks of pictures: how much of each pixel is made anew, the ramp at the edge, and pasting into the picture.

A mask is (height, width), float32, 0..1: 0 stays, 1 is made anew.
"""

from typing import Literal, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Blend = Literal["none", "feather", "gaussian"]
Pixels = NDArray[np.uint8]
Mask = NDArray[np.float32]

Kind = TypeVar("Kind", bound=np.generic)

_RINGING = 16
"""Values this close to black or white count as black or white: lossy files have such values beside an edge."""
_GREY = 128.0
"""Colour of what is filled in where nothing is around it."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    left: int
    top: int
    right: int
    """The first column outside."""
    bottom: int

    def of(self, pixels: NDArray[Kind]) -> NDArray[Kind]:
        """The pixels inside, a view."""
        return pixels[self.top : self.bottom, self.left : self.right]


def luma(pixels: Pixels) -> Pixels:
    """(height, width, 3 or 4) → (height, width): the brightness. Alpha is not read."""
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.uint8)  # OpenCV takes four channels too


def grown(levels: Pixels, dilation_px: int, *, invert: bool = False) -> Mask:
    """The mask of grey values, 255 made anew, or 0 if `invert`; grown by so many pixels in all directions."""
    found = 255 - levels if invert else levels
    found = np.where(found < _RINGING, 0, np.where(found > 255 - _RINGING, 255, found)).astype(np.uint8)
    if dilation_px:
        edge = 2 * dilation_px + 1
        found = cv2.dilate(found, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (edge, edge)))
    return (found / np.float32(255)).astype(np.float32)


def ramp(mask: Mask, blend: Blend, blur_px: int) -> Mask:
    """The share of the new picture in each pixel: 0 outside the mask, up to 1 within, over `blur_px` pixels. The picture's
    own edge has no ramp."""
    inside = (mask > 0).astype(np.float32)
    if blend == "none" or not blur_px or inside.all():
        return inside
    if blend == "feather":
        distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.minimum(distance / np.float32(blur_px + 1), 1, dtype=np.float32)
    blurred = cv2.GaussianBlur(inside, (0, 0), blur_px / 3, borderType=cv2.BORDER_REPLICATE)
    return (np.clip(blurred, 0, 1) * inside).astype(np.float32)


def spread(pixels: Pixels, mask: Mask) -> Pixels:
    """The pixels with the colours around the mask spread into it, as far as the mask says."""
    known = (mask == 0).astype(np.float32)
    colours = _pulled(pixels.astype(np.float32) * known[..., None], known)
    share = mask[..., None]
    return np.rint(pixels * (1 - share) + colours * share).astype(np.uint8)


def _pulled(colours: NDArray[np.float32], weight: Mask) -> NDArray[np.float32]:
    """The weighted mean colours. A pixel without weight gets the colour of its place in the picture at half the size."""
    height, width = weight.shape
    here = (colours / np.maximum(weight, np.float32(1e-6))[..., None]).astype(np.float32)
    if weight.all():
        return here
    if height == width == 1:
        return here if weight.any() else np.full_like(colours, _GREY)
    half = ((width + 1) // 2, (height + 1) // 2)
    smaller, light = (_resized(one, half, cv2.INTER_AREA) for one in (colours, weight))
    around = _resized(_pulled(smaller, light), (width, height), cv2.INTER_LINEAR)
    share = weight[..., None]
    return (here * share + around * (1 - share)).astype(np.float32)


def _resized(values: NDArray[np.float32], size: tuple[int, int], way: int) -> NDArray[np.float32]:
    return cv2.resize(values, size, interpolation=way).astype(np.float32).reshape(size[1], size[0], *values.shape[2:])


def surroundings(mask: Mask, padding_px: int, shape: tuple[int, int]) -> Box:
    """The box around the mask with so much padding, grown to the shape (width, height) as far as the picture reaches."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    across = _padded(columns[0], columns[-1] + 1, padding_px, width)
    down = _padded(rows[0], rows[-1] + 1, padding_px, height)
    wide, high = across[1] - across[0], down[1] - down[0]
    # The shape is reached by growing the shorter side, so that nothing of the padding is cut.
    left, right = _widened(*across, max(wide, round(high * shape[0] / shape[1])), width)
    top, bottom = _widened(*down, max(high, round(wide * shape[1] / shape[0])), height)
    return Box(left, top, right, bottom)


def in_made_size(mask: Mask, size: tuple[int, int]) -> Mask:
    """A part of a mask in the size (width, height) that is made of it. A larger mask keeps its hard edge."""
    if mask.shape[::-1] == size:
        return mask
    way = cv2.INTER_NEAREST_EXACT if size[0] >= mask.shape[1] else cv2.INTER_AREA
    return cv2.resize(mask, size, interpolation=way).astype(np.float32)


def _padded(begin: int, end: int, padding: int, limit: int) -> tuple[int, int]:
    return max(0, int(begin) - padding), min(limit, int(end) + padding)


def _widened(begin: int, end: int, size: int, limit: int) -> tuple[int, int]:
    """The interval of length `size` around the same middle, moved inside 0..`limit`."""
    size = min(size, limit)
    begin = min(max(0, (begin + end - size) // 2), limit - size)
    return begin, begin + size


def put_back(picture: Pixels, made: Pixels, share: Mask) -> Pixels:
    """The picture with the made pixels in it, by their share. A pixel without a share keeps its bytes."""
    weight = share[..., None]
    return np.rint(picture * (1 - weight) + made * weight).astype(np.uint8)
