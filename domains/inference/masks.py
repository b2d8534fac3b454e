"""Which part of a picture is made anew, and how far it grows beyond its edges: as requested, and with every choice made."""

import math
from enum import StrEnum

import msgspec

DEFAULT_BLUR_PX = 8
DEFAULT_ZOOM_PADDING_PX = 32
DEFAULT_OVERLAP_PX = 32
SIDES = ("left_px", "top_px", "right_px", "bottom_px")
_ROUNDING = 1e-6


class MaskBlend(StrEnum):
    """How the new part meets the old one at the edge of a mask."""

    NONE = "none"
    """A hard edge."""
    FEATHER = "feather"
    """A linear ramp as wide as the blur, inside the mask."""
    GAUSSIAN = "gaussian"
    """A Gaussian ramp with a third of the blur as sigma, cut off at the mask's edge."""


class MaskFill(StrEnum):
    """What the new part starts from."""

    ORIGINAL = "original"
    """The pixels that are there."""
    NOISE = "noise"
    """Noise alone."""
    EDGE = "edge"
    """The colours around it, spread inwards or outwards."""


class InpaintMask(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a picture to make anew, as requested."""

    blob_id: str = ""
    """The blob with the encoded file."""
    data: bytes = b""
    """The encoded file, until it is stored as a blob. Stored requests name the blob."""
    blur_px: int | None = None
    """0..50. Absent: 8."""
    dilation_px: int = 0
    """0..50: how much the mask grows first."""
    invert: bool = False
    """Whether black is made anew."""
    blend: MaskBlend = MaskBlend.FEATHER
    fill: MaskFill = MaskFill.ORIGINAL
    zoom_to_mask: bool = False
    """Whether the surroundings of the mask alone are made, at the full size."""
    zoom_padding_px: int | None = None
    """0..256 around the mask. Absent: 32."""


class ResolvedMask(msgspec.Struct, frozen=True, kw_only=True):
    """A mask with every choice made."""

    blob_id: str
    sha256: str
    """Hash of the encoded file: a replay detects another one."""
    blur_px: int
    dilation_px: int
    invert: bool
    blend: MaskBlend
    fill: MaskFill
    zoom_padding_px: int | None = None
    """None: the whole picture is made, not the mask's surroundings alone."""


class Outpaint(msgspec.Struct, frozen=True, kw_only=True):
    """How far to grow a picture, as requested."""

    left_px: int = 0
    """0..2048, a multiple of 8, as the others."""
    top_px: int = 0
    right_px: int = 0
    bottom_px: int = 0
    overlap_px: int | None = None
    """0..256: how far the change reaches into the old picture. Absent: 32."""
    fill: MaskFill = MaskFill.EDGE
    """What the new parts start from: EDGE or NOISE."""


class ResolvedOutpaint(msgspec.Struct, frozen=True, kw_only=True):
    """The growth with every choice made."""

    left_px: int
    top_px: int
    right_px: int
    bottom_px: int
    overlap_px: int
    fill: MaskFill

    @property
    def across_px(self) -> int:
        """Growth of the width."""
        return self.left_px + self.right_px

    @property
    def down_px(self) -> int:
        """Growth of the height."""
        return self.top_px + self.bottom_px


def steps_of(share: float, steps: int) -> int:
    """How many of the steps are computed, the last ones, for a share of them: ⌈steps × share⌉."""
    # A product such as 30 × 0.1 is a little above the whole number that is meant.
    return math.ceil(steps * share - _ROUNDING)
