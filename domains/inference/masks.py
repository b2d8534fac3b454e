"""Which part of a picture is made anew, and how far it grows beyond its edges: as requested, and with every choice made."""

import math
from enum import StrEnum

import msgspec

DEFAULT_BLUR_PX = 8
DEFAULT_ZOOM_PADDING_PX = 32
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


def steps_of(share: float, steps: int) -> int:
    """How many of the steps are computed, the last ones, for a share of them: ⌈steps × share⌉."""
    # A product such as 30 × 0.1 is a little above the whole number that is meant.
    return math.ceil(steps * share - _ROUNDING)
