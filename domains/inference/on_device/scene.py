"""The picture of a run that makes a part of it anew: what the encoder sees, which pixels change, and the way back."""

from functools import cached_property

import numpy as np

from domains.imaging import fitted
from domains.imaging.masks import Box, Mask, Pixels, grown, in_made_size, put_back, ramp, spread, surroundings
from domains.inference.generation import ResolvedGeneration
from domains.inference.masks import MaskFill, ResolvedMask, ResolvedOutpaint


class Scene:
    """Pixels on the host. Computed from files alone, so that a resumed run has the same."""

    def __init__(self, resolved: ResolvedGeneration, picture: Pixels, levels: Pixels | None) -> None:
        """`picture` (height, width, 3) and `levels` (height, width) have the size before growing. `levels` None: the picture
        grows, and none of it is masked."""
        assert resolved.init_image is not None, "a mask is a part of a picture, and only a picture grows"
        self._mask, self._outpaint = resolved.mask, resolved.outpaint
        self._size = resolved.width_px, resolved.height_px
        self._strength = resolved.init_image.strength
        new, band = _grown(picture.shape[1], picture.shape[0], self._outpaint)
        self._new = new
        """1 where no picture was, else 0. This and all arrays below have the grown size."""
        # Without strength nothing of the old picture changes, and the change ends at its edge.
        self._near = np.maximum(new, band if self._strength else 0)
        """1 for the new parts and the overlap."""
        self.picture = _padded(picture, self._outpaint)
        self._masked = np.zeros_like(new)
        """How much of each pixel the mask makes anew."""
        if self._mask is not None and levels is not None and self._strength:
            found = grown(levels, self._mask.dilation_px, invert=self._mask.invert)
            self._masked = _padded(found, self._outpaint) * (1 - new)

    def draw(self) -> None:
        """Compute all that the steps begin with, which later reads only look up."""
        if not self.empty:
            _ = self.shares, self.from_noise, self.start

    @property
    def empty(self) -> bool:
        """Whether no pixel is made anew."""
        return not self._changed.any()

    @cached_property
    def _changed(self) -> Mask:
        return np.maximum(self._masked, self._near)

    @cached_property
    def _box(self) -> Box:
        height, width = self._changed.shape
        padding = None if self._mask is None else self._mask.zoom_padding_px
        return Box(0, 0, width, height) if padding is None else surroundings(self._changed, padding, self._size)

    @cached_property
    def shares(self) -> Mask:
        """(height, width) of what is made: the share of the steps that make each pixel anew."""
        return self._made(np.maximum(self._changed * np.float32(self._strength), self._new))

    @cached_property
    def from_noise(self) -> Mask | None:
        """(height, width) of what is made: how much of each pixel begins at noise alone. None: nothing."""
        found = np.zeros_like(self._new)
        if self._outpaint is not None and self._outpaint.fill is MaskFill.NOISE:
            found = self._new
        if self._mask is not None and self._mask.fill is MaskFill.NOISE:
            found = np.maximum(found, self._masked)
        return self._made(found) if found.any() else None

    def _made(self, mask: Mask) -> Mask:
        """A mask in the size that is made."""
        return in_made_size(np.ascontiguousarray(self._box.of(mask)), self._size)

    @cached_property
    def start(self) -> Pixels:
        """(height, width, 3): what the encoder sees, in the size that is made. The fill is in it already."""
        filled = np.maximum(self._new, _filled(self._mask, self._masked))
        whole = spread(self.picture, filled) if filled.any() else self.picture
        # What Pillow has resampled cannot be written to, of which torch warns.
        return np.require(fitted(np.ascontiguousarray(self._box.of(whole)), *self._size, "stretch"), requirements="W")

    @cached_property
    def _ramp(self) -> Mask:
        found = np.zeros_like(self._new)
        if self._outpaint is not None:
            found = ramp(self._near, "feather", self._outpaint.overlap_px)
        if self._mask is not None:
            found = np.maximum(found, ramp(self._masked, self._mask.blend.value, self._mask.blur_px))
        return found

    def finished(self, made: Pixels) -> Pixels:
        """The picture with what was made in it; every pixel outside the mask has its old bytes."""
        box, result = self._box, self.picture.copy()
        part = fitted(made, box.right - box.left, box.bottom - box.top, "stretch")
        box.of(result)[:] = put_back(box.of(self.picture), part, box.of(self._ramp))
        return result


def _filled(mask: ResolvedMask | None, masked: Mask) -> Mask:
    """How much of each pixel is filled in before it is encoded."""
    return np.zeros_like(masked) if mask is None or mask.fill is MaskFill.ORIGINAL else masked


def _grown(width: int, height: int, by: ResolvedOutpaint | None) -> tuple[Mask, Mask]:
    """Masks of the grown size: the new parts; the new parts with the overlap."""
    if by is None:
        nothing = np.zeros((height, width), np.float32)
        return nothing, nothing
    new, near = (np.ones((height + by.down_px, width + by.across_px), np.float32) for _ in range(2))
    box = Box(by.left_px, by.top_px, by.left_px + width, by.top_px + height)
    box.of(new)[:] = 0
    # A side that does not grow has no overlap.
    left, top, right, bottom = (
        by.overlap_px if side else 0 for side in (by.left_px, by.top_px, by.right_px, by.bottom_px)
    )
    inner = Box(box.left + left, box.top + top, box.right - right, box.bottom - bottom)
    if inner.left < inner.right and inner.top < inner.bottom:
        inner.of(near)[:] = 0
    return new, near


def _padded(pixels: np.ndarray, by: ResolvedOutpaint | None) -> np.ndarray:
    """Pixels or a mask in the grown size; 0 where nothing was."""
    if by is None:
        return pixels
    around = ((by.top_px, by.bottom_px), (by.left_px, by.right_px), (0, 0))
    return np.pad(pixels, around[: pixels.ndim])
