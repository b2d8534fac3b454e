"""Decodes untrusted files to pixels: the declared size is checked before memory is allocated for it."""

import io
import struct
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from domains.errors import InvalidRequest, Violation
from domains.imaging.bad_image import bad_image
from domains.imaging.header import probe

_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/avif": "AVIF"}
_MODES: dict[int, str] = {1: "L", 3: "RGB", 4: "RGBA"}
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, KeyError, IndexError),
    Image.DecompressionBombError,
)
"""What Pillow raises for a broken file."""


def decode(data: bytes, *, max_pixels: int, channels: Literal[1, 3, 4] = 3, field: str = "image") -> NDArray[np.uint8]:
    """(height, width) grey, (height, width, 3) RGB or (height, width, 4) RGBA, as `channels` asks; a writable array.

    The EXIF orientation is applied. Transparency is laid over white unless `channels` is 4. An animation gives its
    first picture, 16 bits a sample become 8. `field` is the image's path in the request, for the error.

    Raises InvalidRequest(BAD_IMAGE) for a file of no format in `MEDIA_TYPES`, or one that is damaged or cut short, or
    declares more than `max_pixels` pixels.
    """
    try:
        return _decode(data, max_pixels, _MODES[channels])
    except InvalidRequest as error:
        violations = [Violation(field=field, message=one.message) for one in error.violations]
        raise InvalidRequest(violations, error.reason, **error.facts) from error


def _decode(data: bytes, max_pixels: int, mode: str) -> NDArray[np.uint8]:
    header = probe(data)
    _check_size(header.width_px, header.height_px, max_pixels)
    try:
        with Image.open(io.BytesIO(data), formats=[_FORMATS[header.media_type]]) as image:
            _check_size(*image.size, max_pixels)  # Pillow allocates what it read, which may be another header
            return np.array(_in_mode(ImageOps.exif_transpose(_eight_bits(image)), mode))
    except _DAMAGE as error:
        raise bad_image(f"breaks off or is damaged: {error}") from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        problem = f"is {width}×{height} pixels, {width * height} in all; at most {max_pixels} are accepted"
        raise bad_image(problem, pixels=width * height, max_pixels=max_pixels)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit grey when it converts; the high byte is what a viewer shows."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "RGBA" or not image.has_transparency_data:
        return image.convert(mode)
    over = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(over, image.convert("RGBA")).convert(mode)
