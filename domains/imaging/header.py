"""Reads a file's format and size without decoding it."""

import msgspec

from domains.imaging.bad_image import bad_image
from domains.imaging.media_types import MEDIA_TYPES, media_type_of


class ImageHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Read from the first bytes only."""

    media_type: str
    """A key of `MEDIA_TYPES`."""
    width_px: int
    """As stored: a JPEG that its EXIF turns by 90° is decoded with the two sides exchanged."""
    height_px: int
    """As stored."""


def probe(data: bytes) -> ImageHeader:
    """The format and the declared size; raises BAD_IMAGE for a format that `MEDIA_TYPES` lacks."""
    media_type = media_type_of(data)
    width, height = MEDIA_TYPES[media_type].size(data)
    if not (width and height):
        raise bad_image(f"declares a size of {width}×{height} pixels")
    return ImageHeader(media_type=media_type, width_px=width, height_px=height)
