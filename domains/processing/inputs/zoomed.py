"""The part of a picture that `zoom_to_mask` makes, as pictures that guide it are cut: with numpy, in another thread."""

from functools import cached_property
from typing import TYPE_CHECKING

from domains.inference.generation import ResolvedGeneration

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from domains.imaging.masks import Box, Mask


class Zoomed:
    """A generation whose mask is known. Serves all of its maps."""

    def __init__(self, resolved: ResolvedGeneration, levels: bytes = b"") -> None:
        """`levels`: the grey values of the mask, one byte each, in the size of the whole picture. Empty: there is no mask,
        or none of its values is needed."""
        self.resolved = resolved
        self._levels = levels

    @property
    def needs_levels(self) -> bool:
        """Whether a part of the picture is made, which the mask tells."""
        mask = self.resolved.mask
        return mask is not None and mask.zoom_padding_px is not None

    @property
    def whole_px(self) -> tuple[int, int]:
        """(width, height) of the whole picture."""
        return self.resolved.input_px if self.needs_levels else self.made_px

    @property
    def made_px(self) -> tuple[int, int]:
        """(width, height) of what is made."""
        return self.resolved.width_px, self.resolved.height_px

    def part(self, pixels: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
        """Pixels of the whole picture → those of what is made."""
        if (box := self._box) is None:
            return pixels
        import numpy as np

        from domains.imaging import fitted

        return fitted(np.ascontiguousarray(box.of(pixels)), *self.made_px, "stretch")

    def region(self, pixels: "NDArray[np.uint8]") -> bytes:
        """A region (h, w) of the whole picture, of any size → one byte a pixel of what is made."""
        from domains.imaging import fitted

        return self.part(fitted(pixels, *self.whole_px, "stretch")).tobytes()

    def hidden(self) -> bytes:
        """One byte a pixel of what is made: 255 where an inpainting map marks it as missing, because the mask covers more
        than half of it; else 0."""
        import numpy as np

        from domains.imaging.masks import in_made_size

        masked, box = self._masked, self._box
        part = masked if box is None else in_made_size(np.ascontiguousarray(box.of(masked)), self.made_px)
        return ((part > 0.5) * np.uint8(255)).tobytes()

    @cached_property
    def _box(self) -> "Box | None":
        """Where the part lies, as the worker finds it. None: the whole picture is made, or nothing."""
        mask = self.resolved.mask
        if mask is None or mask.zoom_padding_px is None:
            return None
        from domains.imaging.masks import surroundings

        masked = self._masked
        return surroundings(masked, mask.zoom_padding_px, self.made_px) if masked.any() else None

    @cached_property
    def _masked(self) -> "Mask":
        """How much of each pixel of the whole picture the mask makes anew."""
        import numpy as np

        from domains.imaging.masks import grown

        mask = self.resolved.mask
        assert mask is not None, "only a mask has levels"
        width, height = self.whole_px
        grey = np.frombuffer(self._levels, np.uint8).reshape(height, width)
        return grown(grey, mask.dilation_px, invert=mask.invert)
