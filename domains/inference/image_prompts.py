"""Pictures that guide content and style through IP-Adapters: as requested, and with every choice made."""

import math
from enum import StrEnum

import msgspec

from domains.inference.controls import PictureSource, UsedPicture

_ROUNDING = 1e-6


class ImagePromptMode(StrEnum):
    """What is taken from the pictures."""

    CONTENT_AND_STYLE = "content_and_style"
    STYLE = "style"
    """Colours, materials and manner: the layers that InstantStyle (Wang et al. 2024) found to carry them."""
    COMPOSITION = "composition"
    """Where things stand: likewise."""


class ImagePrompt(msgspec.Struct, frozen=True, kw_only=True):
    """An IP-Adapter with its pictures, as requested."""

    model_id: str
    images: tuple[PictureSource, ...] = ()
    """1..16; their embeddings are joined."""
    weight: float | None = None
    """0..10; 0: no effect. Absent: 1."""
    start_ratio: float | None = None
    """Share of the steps after which they begin to guide. Absent: 0."""
    end_ratio: float | None = None
    """Share of the steps after which they stop, more than the start. Absent: 1."""
    region: PictureSource | None = None
    """Where they count: white. Absent: everywhere."""
    mode: ImagePromptMode = ImagePromptMode.CONTENT_AND_STYLE
    negative_image: PictureSource | None = None
    """A picture to lead away from. Absent: none."""

    def pictures(self) -> list[tuple[str, PictureSource]]:
        """All its pictures with the names of their fields."""
        found = [(f"images[{place}]", one) for place, one in enumerate(self.images)]
        others = (("region", self.region), ("negative_image", self.negative_image))
        return [*found, *((name, one) for name, one in others if one is not None)]


class ResolvedImagePrompt(msgspec.Struct, frozen=True, kw_only=True):
    """An image prompt with every choice made."""

    model_id: str
    model_sha256: str
    """Hash of its weights: a replay detects another one with the same id."""
    encoder_model_id: str
    """The image encoder that reads the pictures."""
    encoder_sha256: str
    edge_px: int
    """Edge of the square pictures that the encoder reads."""
    cut: bool = True
    """Whether pictures are cut to that square; else they are stretched to it."""
    images: tuple[UsedPicture, ...]
    weight: float = 1.0
    start_ratio: float = 0.0
    end_ratio: float = 1.0
    region: UsedPicture | None = None
    mode: ImagePromptMode = ImagePromptMode.CONTENT_AND_STYLE
    negative_image: UsedPicture | None = None

    def pictures(self) -> list[tuple[str, UsedPicture]]:
        """All its pictures with the names of their fields."""
        found = [(f"images[{place}]", one) for place, one in enumerate(self.images)]
        others = (("region", self.region), ("negative_image", self.negative_image))
        return [*found, *((name, one) for name, one in others if one is not None)]

    def steps_of(self, count: int) -> range:
        """The steps (from 0, of `count`) in which it counts: those that lie within its range."""
        begin = math.ceil(count * self.start_ratio - _ROUNDING)
        return range(begin, math.floor(count * self.end_ratio + _ROUNDING))


LAYERS = {
    ImagePromptMode.STYLE: "up_blocks.0.attentions.1.",
    ImagePromptMode.COMPOSITION: "down_blocks.2.attentions.1.",
}
"""Beginnings of the names of the layers that a mode keeps to, in SDXL's U-Net. A mode that is not here uses all."""
MODES = {"sdxl": tuple(ImagePromptMode)}
"""By family: the modes that it has. A family that is not here has no other than CONTENT_AND_STYLE."""
PROMPTED = ("sd1", "sd2", "sdxl", "sd3", "flux1", "chroma")
"""Families whose IP-Adapters are computed."""
TIMED = ("sd3",)
"""Families whose IP-Adapters read pictures in each step otherwise, so that they stay on the device until the last one."""
