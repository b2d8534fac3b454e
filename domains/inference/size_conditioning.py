"""What a denoiser that was trained with picture sizes is told about them."""

from collections.abc import Mapping

import msgspec

SizePx = tuple[int, int]
"""(width, height); 0: that of the picture that is made."""


class SizeConditioning(msgspec.Struct, frozen=True, kw_only=True):
    """Picture sizes that the denoiser is told in place of the real ones."""

    original_px: SizePx = (0, 0)
    """The original size."""
    target_px: SizePx = (0, 0)
    """The size that it was scaled to."""
    crop_left_px: int = 0
    crop_top_px: int = 0

    def numbers(self, size_px: SizePx) -> tuple[int, ...]:
        """Height and width of the original, its crop's top and left, height and width of the target, as SDXL reads them.
        `size_px`: the size that is made."""
        original, target = _filled(self.original_px, size_px), _filled(self.target_px, size_px)
        return *original[::-1], self.crop_top_px, self.crop_left_px, *target[::-1]

    @property
    def by_path(self) -> Mapping[str, int]:
        """The numbers by their fields in a generation."""
        sizes = {"original_size": self.original_px, "target_size": self.target_px}
        edges = {
            f"{name}.{edge}": value
            for name, size in sizes.items()
            for edge, value in zip(("width_px", "height_px"), size, strict=True)
        }
        told = {**edges, "crop_left_px": self.crop_left_px, "crop_top_px": self.crop_top_px}
        return {f"size_conditioning.{name}": value for name, value in told.items()}


def _filled(size: SizePx, size_px: SizePx) -> SizePx:
    return size[0] or size_px[0], size[1] or size_px[1]


AS_MADE = SizeConditioning()
"""No crop, no scaling."""
