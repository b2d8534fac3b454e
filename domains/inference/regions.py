"""Parts of a picture with a prompt of their own: as requested, and with every choice made."""

import math

import msgspec

from domains.inference.controls import PictureSource, UsedPicture
from domains.inference.loras import Lora, ResolvedLora

_ROUNDING = 1e-6


class Rectangle(msgspec.Struct, frozen=True, kw_only=True):
    """A rectangle, in pixels of the asked size."""

    left_px: int
    top_px: int
    width_px: int
    height_px: int


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """A part with its prompt, as requested."""

    mask: PictureSource | None = None
    """Where: white counts, grey counts partly. Absent: the rectangle says it."""
    rectangle: Rectangle | None = None
    """Where. Absent: the mask says it."""
    prompt: str = ""
    negative_prompt: str = ""
    """Empty: the generation's."""
    weight: float | None = None
    """Share against other regions and the generation's prompt, 0..10; 0: no effect. Absent: 1."""
    start_ratio: float | None = None
    """Share of the steps after which it begins to count. Absent: 0."""
    end_ratio: float | None = None
    """Share of the steps after which it stops, more than the start. Absent: 1."""
    loras: tuple[Lora, ...] = ()
    """LoRAs that count in it alone, beside the generation's."""


class ResolvedRegion(msgspec.Struct, frozen=True, kw_only=True):
    """A region with every choice made."""

    mask: UsedPicture | None = None
    rectangle: Rectangle | None = None
    prompt: str = ""
    negative_prompt: str = ""
    weight: float = 1.0
    start_ratio: float = 0.0
    end_ratio: float = 1.0
    loras: tuple[ResolvedLora, ...] = ()

    def steps_of(self, count: int) -> range:
        """The steps (from 0, of `count`) in which it counts. Empty for a region without weight."""
        begin = math.ceil(count * self.start_ratio - _ROUNDING)
        return range(begin, math.floor(count * self.end_ratio + _ROUNDING)) if self.weight else range(0)


REGIONAL = ("sd1", "sd2", "sdxl")
"""Families whose denoiser reads the prompt by cross-attention, place by place."""
