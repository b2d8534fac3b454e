"""The image formats that are written and read: one table, one line a format."""

from collections.abc import Callable, Mapping

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from domains.imaging import jpeg, png, webp
from domains.imaging.bad_image import bad_image

DEFAULT_QUALITY = 90


class MediaType(msgspec.Struct, frozen=True, kw_only=True):
    """What can be done with one format."""

    extension: str
    """The usual ending of a file's name, with its dot."""
    alpha: bool
    """Whether it keeps an alpha channel."""
    side_limit_px: int
    """The largest width or height that it can express."""
    lossy: bool
    """Whether `quality` means something."""
    write: Callable[[NDArray[np.uint8], int, str | None], bytes]
    """(pixels, quality 1..100, manifest) to a file."""
    size: Callable[[bytes], tuple[int, int]]
    """(width, height) from the headers alone."""
    read_manifest: Callable[[bytes], str | None]


def _png(pixels: NDArray[np.uint8], _quality: int, manifest: str | None) -> bytes:
    return png.write(pixels, manifest)


def _jpeg(pixels: NDArray[np.uint8], quality: int, manifest: str | None) -> bytes:
    file = _opencv(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return file if manifest is None else jpeg.with_manifest(file, manifest)


def _webp(pixels: NDArray[np.uint8], quality: int, manifest: str | None) -> bytes:
    file = _opencv(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return file if manifest is None else webp.with_manifest(file, manifest)


def _opencv(extension: str, pixels: NDArray[np.uint8], flags: list[int]) -> bytes:
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    swapped = cv2.cvtColor(pixels, order[pixels.shape[2]]) if pixels.ndim == 3 else pixels
    _written, file = cv2.imencode(extension, swapped, flags)  # a failure raises cv2.error
    return file.tobytes()


MEDIA_TYPES: Mapping[str, MediaType] = {
    "image/png": MediaType(
        extension=".png", alpha=True, side_limit_px=(1 << 31) - 1, lossy=False,
        write=_png, size=png.size, read_manifest=png.read_manifest,
    ),
    "image/jpeg": MediaType(
        extension=".jpg", alpha=False, side_limit_px=65_500, lossy=True,
        write=_jpeg, size=jpeg.size, read_manifest=jpeg.read_manifest,
    ),
    "image/webp": MediaType(
        extension=".webp", alpha=True, side_limit_px=16_383, lossy=True,
        write=_webp, size=webp.size, read_manifest=webp.read_manifest,
    ),
}  # fmt: skip


def media_type_of(data: bytes) -> str:
    """Which format the file's first bytes announce; raises BAD_IMAGE for any other."""
    if data.startswith(png.SIGNATURE):
        return "image/png"
    if data.startswith(jpeg.SIGNATURE):
        return "image/jpeg"
    if webp.is_webp(data):
        return "image/webp"
    problem = "is empty" if not data else f"is no PNG, JPEG or WebP file: it begins with {data[:8].hex(' ')}"
    raise bad_image(problem)
