"""The picture of a run that makes a part of it anew: what the encoder sees, which pixels change, and the way back."""

from functools import cached_property

import cv2
import numpy as np

from domains.imaging import fitted
from domains.imaging.masks import Box, Mask, Pixels, grown, put_back, ramp, spread, surroundings
from domains.inference.generation import ResolvedGeneration
from domains.inference.masks import MaskFill, ResolvedMask


class Scene:
    """Pixels on the host. Computed from files alone, so that a resumed run has the same."""

    def __init__(self, resolved: ResolvedGeneration, mask: ResolvedMask, picture: Pixels, levels: Pixels) -> None:
        """`picture` (height, width, 3) and `levels` (height, width) have the size of the result."""
        self.picture = picture
        self._mask = mask
        self._size = resolved.width_px, resolved.height_px
        self._whole = grown(levels, mask.dilation_px, invert=mask.invert)

    @property
    def empty(self) -> bool:
        """Whether no pixel is made anew."""
        return not self._whole.any()

    @cached_property
    def _box(self) -> Box:
        height, width = self._whole.shape
        padding = self._mask.zoom_padding_px
        return Box(0, 0, width, height) if padding is None else surroundings(self._whole, padding, self._size)

    @cached_property
    def shares(self) -> Mask:
        """(height, width) of what is made: how much of each pixel is made anew."""
        part = np.ascontiguousarray(self._box.of(self._whole))
        if part.shape[::-1] == self._size:
            return part
        larger = self._size[0] >= part.shape[1]
        # A larger mask keeps its hard edge.
        way = cv2.INTER_NEAREST_EXACT if larger else cv2.INTER_AREA
        return cv2.resize(part, self._size, interpolation=way).astype(np.float32)

    @cached_property
    def start(self) -> Pixels:
        """(height, width, 3): what the encoder sees, in the size that is made. The fill is in it already."""
        whole = self.picture if self._mask.fill is MaskFill.ORIGINAL else spread(self.picture, self._whole)
        return fitted(np.ascontiguousarray(self._box.of(whole)), *self._size, "stretch")

    @cached_property
    def _ramp(self) -> Mask:
        return ramp(self._whole, self._mask.blend.value, self._mask.blur_px)

    def finished(self, made: Pixels) -> Pixels:
        """The picture with what was made in it; every pixel outside the mask has its old bytes."""
        box, result = self._box, self.picture.copy()
        part = fitted(made, box.right - box.left, box.bottom - box.top, "stretch")
        box.of(result)[:] = put_back(box.of(self.picture), part, box.of(self._ramp))
        return result
