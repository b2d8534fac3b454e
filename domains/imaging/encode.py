"""Pixels to a file, and what a file says about itself."""

import io
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.imaging import exif, png

MEDIA_TYPES: Final = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
"""What can be written, with the usual ending of a file's name."""

DEFAULT_QUALITY: Final = 90


def encode(
    pixels: NDArray[np.uint8], media_type: str, *, quality: int | None = None, manifest: str | None = None
) -> bytes:
    """(height, width[, 3 | 4]) uint8 RGB or RGBA to a file; `manifest` is embedded as its format can carry it."""
    pixels = np.ascontiguousarray(pixels)
    if media_type == "image/png":
        return png.write(pixels, manifest)
    if media_type == "image/jpeg":
        file = _opencv(pixels[..., :3], ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)
        return file if manifest is None else exif.add_to_jpeg(file, manifest)
    if media_type == "image/webp":
        file = _opencv(pixels[..., :3], ".webp", cv2.IMWRITE_WEBP_QUALITY, quality)
        height, width = pixels.shape[:2]
        return file if manifest is None else exif.add_to_webp(file, manifest, width, height)
    raise InvalidRequest([Violation(field="media_type", message=f"cannot write {media_type!r}")])


def _opencv(pixels: NDArray[np.uint8], ending: str, flag: int, quality: int | None) -> bytes:
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    done, file = cv2.imencode(ending, bgr, [flag, DEFAULT_QUALITY if quality is None else quality])
    assert done, f"OpenCV refused to write {ending}"
    return file.tobytes()


def read_manifest(file: bytes) -> str | None:
    """The manifest in a PNG, JPEG or WebP file; None if it has none."""
    with _opened(file) as image:
        if (text := image.info.get(png.KEYWORD.decode())) is not None:
            return str(text)
        comment = image.getexif().get_ifd(0x8769).get(0x9286)
    if isinstance(comment, bytes) and comment.startswith(b"UNICODE\0"):
        return comment[8:].decode("utf-16-le")
    return None


def decode(file: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """(height, width, 3) RGB. The declared size is checked before anything is allocated for it."""
    with _opened(file) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise _bad(f"is {width}×{height}; at most {max_pixels} pixels are accepted")
        try:
            return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise _bad(f"breaks off or is damaged: {error}") from error


def _opened(file: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(file), formats=["PNG", "JPEG", "WEBP"])
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _bad("is no PNG, JPEG or WebP file") from error


def _bad(what: str) -> InvalidRequest:
    return InvalidRequest([Violation(field="image", message=f"the image {what}")], ErrorReason.BAD_IMAGE)
