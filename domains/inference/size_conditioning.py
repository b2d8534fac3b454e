"""What a denoiser that was trained with picture sizes is told about them."""

import msgspec

SizePx = tuple[int, int]
"""(width, height)"""


class SizeConditioning(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes that the picture is pretended to have."""

    original_px: SizePx | None = None
    """What it had. None: the size that is made."""
    target_px: SizePx | None = None
    """What it was brought to. None: the size that is made."""
    crop_left_px: int = 0
    crop_top_px: int = 0

    def numbers(self, size_px: SizePx) -> tuple[int, ...]:
        """Height and width of the original, its crop's top and left, height and width of the target, as SDXL reads them.
        `size_px`: the size that is made."""
        original, target = self.original_px or size_px, self.target_px or size_px
        return *original[::-1], self.crop_top_px, self.crop_left_px, *target[::-1]


AS_MADE = SizeConditioning()
"""No crop, no scaling."""
