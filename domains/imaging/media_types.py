"""The image formats that are read and written: one table, one line a format."""

import io
from collections.abc import Callable, Iterator, Mapping

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from domains.imaging import avif, jpeg, png, png_chunks, webp
from domains.imaging.bad_image import bad_image
from domains.imaging.metadata import Metadata

DEFAULT_QUALITY = 90


class MediaType(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of one format."""

    extension: str
    """The usual ending of a file's name, with its dot."""
    alpha: bool
    """Whether it keeps an alpha channel."""
    side_limit_px: int
    """The largest width or height that it can express."""
    lossy: bool
    """Whether `quality` has an effect."""
    lossless: bool
    """Whether it can keep every pixel."""
    write: Callable[[NDArray[np.uint8], int | None, Metadata], bytes]
    """(pixels, quality 1..100 or None for every pixel kept, metadata) to a file."""
    size: Callable[[bytes], tuple[int, int]]
    """(width, height) from the headers alone."""
    read_manifest: Callable[[bytes], str | None]
    packets: Callable[[bytes], Iterator[tuple[str, bytes]]]
    """("xmp" or "c2pa", content) of each part of the file that can hold a mark of its origin."""
    parameters_limit_bytes: int | None = None
    """Most bytes of A1111's parameters, as UTF-16. None: no request reaches the limit."""


def _png(pixels: NDArray[np.uint8], _quality: int | None, metadata: Metadata) -> bytes:
    return png.write(pixels, metadata)


def _jpeg(pixels: NDArray[np.uint8], quality: int | None, metadata: Metadata) -> bytes:
    return jpeg.with_metadata(_opencv(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _said(quality)]), metadata)


def _webp(pixels: NDArray[np.uint8], quality: int | None, metadata: Metadata) -> bytes:
    lossy = quality is not None
    file = _opencv(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality]) if lossy else _lossless_webp(pixels)
    return file if metadata == Metadata() else webp.with_metadata(file, metadata)


def _avif(pixels: NDArray[np.uint8], quality: int | None, metadata: Metadata) -> bytes:
    return avif.write(pixels, _said(quality), metadata)


def _said(quality: int | None) -> int:
    return DEFAULT_QUALITY if quality is None else quality


def _lossless_webp(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, exact=True)  # exact: colours under full transparency too
    return file.getvalue()


def _opencv(extension: str, pixels: NDArray[np.uint8], flags: list[int]) -> bytes:
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    swapped = cv2.cvtColor(pixels, order[pixels.shape[2]]) if pixels.ndim == 3 else pixels
    _written, file = cv2.imencode(extension, swapped, flags)  # a failure raises cv2.error
    return file.tobytes()


_AVIF = MediaType(
    extension=".avif", alpha=True, side_limit_px=65_536, lossy=True, lossless=False,
    write=_avif, size=avif.size, read_manifest=avif.read_manifest, packets=avif.packets,
)  # fmt: skip

MEDIA_TYPES: Mapping[str, MediaType] = {
    "image/png": MediaType(
        extension=".png", alpha=True, side_limit_px=(1 << 31) - 1, lossy=False, lossless=True,
        write=_png, size=png_chunks.size, read_manifest=png_chunks.read_manifest, packets=png_chunks.packets,
    ),
    "image/jpeg": MediaType(
        extension=".jpg", alpha=False, side_limit_px=65_500, lossy=True, lossless=False,
        write=_jpeg, size=jpeg.size, read_manifest=jpeg.read_manifest, packets=jpeg.packets,
        parameters_limit_bytes=jpeg.PARAMETERS_LIMIT_BYTES,
    ),
    "image/webp": MediaType(
        extension=".webp", alpha=True, side_limit_px=16_383, lossy=True, lossless=True,
        write=_webp, size=webp.size, read_manifest=webp.read_manifest, packets=webp.packets,
    ),
    **({"image/avif": _AVIF} if features.check("avif") else {}),
}  # fmt: skip
"""The formats by media type. AVIF is among them if Pillow was built with it, as its wheels are."""


def media_type_of(data: bytes) -> str:
    """The format that the file's first bytes announce; raises BAD_IMAGE for any other."""
    if data.startswith(png_chunks.SIGNATURE):
        return "image/png"
    if data.startswith(jpeg.SIGNATURE):
        return "image/jpeg"
    if webp.is_webp(data):
        return "image/webp"
    if "image/avif" in MEDIA_TYPES and avif.is_avif(data):
        return "image/avif"
    problem = "is empty" if not data else f"is no {_names()} file: it begins with {data[:8].hex(' ')}"
    raise bad_image(problem)


def _names() -> str:
    *names, last = (name.removeprefix("image/").upper() for name in MEDIA_TYPES)
    return f"{', '.join(names)} or {last}".replace("WEBP", "WebP")
