"""Pictures that a model made for editing sees beside the prompt: as requested, and with every choice made."""

import msgspec

from domains.inference.controls import PictureSource, UsedPicture
from domains.inference.image_fit import ImageFit


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to see, as requested."""

    image: PictureSource = PictureSource()
    fit: ImageFit | None = None
    """How it is brought to a size that the model takes. Absent: COVER."""


class ResolvedReference(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to see, with every choice made."""

    image: UsedPicture
    fit: ImageFit
    width_px: int
    """The size in which the model sees it."""
    height_px: int
