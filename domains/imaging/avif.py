"""AVIF containers (AV1 in ISO/IEC 23000-22), written and read by Pillow's libavif."""

import io
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domains.imaging import exif
from domains.imaging.bad_image import bad_image
from domains.imaging.metadata import Metadata

_BRANDS = (b"avif", b"avis")
_THREADS = 4
"""Encoder threads. The number is fixed because the bytes depend on it; libavif's default is the number of cores."""
_SPEED = 8
"""0 (slow, small) .. 10. At 8 a picture of 1024×1024 takes a few hundredths of a second and is as small as at 6."""
_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""UUID of the box that holds a C2PA store."""
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, Image.DecompressionBombError)
"""What Pillow raises for a broken file."""


def is_avif(file: bytes) -> bool:
    """Whether the first box names a brand of AVIF."""
    end = min(int.from_bytes(file[:4], "big"), 256)
    brands = (file[8:12], *(file[at : at + 4] for at in range(16, end, 4)))
    return file[4:8] == b"ftyp" and any(brand in _BRANDS for brand in brands)


def write(pixels: NDArray[np.uint8], quality: int, metadata: Metadata) -> bytes:
    """(height, width) or (height, width, 3 | 4) to a lossy file of eight bits a colour."""
    said: dict[str, bytes] = {}
    if metadata.texts:
        said["exif"] = exif.block(metadata.manifest, metadata.parameters)
    if metadata.xmp is not None:
        said["xmp"] = metadata.xmp
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "AVIF", quality=quality, speed=_SPEED, max_threads=_THREADS, **said)
    return file.getvalue()


def size(file: bytes) -> tuple[int, int]:
    """(width, height) from the headers; no picture is decoded."""
    with _opened(file) as image:
        return image.size


def read_manifest(file: bytes) -> str | None:
    """The manifest in the EXIF item; None without one."""
    with _opened(file) as image:
        block = image.info.get("exif")
    return exif.read(block.removeprefix(exif.HEADER)) if isinstance(block, bytes) else None


def packets(file: bytes) -> Iterator[tuple[str, bytes]]:
    """("xmp" or "c2pa", content) of each part that can hold a mark."""
    with _opened(file) as image:
        packet = image.info.get("xmp")
    if isinstance(packet, bytes):
        yield "xmp", packet
    for kind, content in _boxes(file):
        if kind == b"uuid" and content[:16] == _C2PA:
            yield "c2pa", content


def _boxes(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of each box of the outermost level, up to the first bytes that are not a box."""
    at = 0
    while len(start := file[at : at + 8]) == 8:
        length, kind = struct.unpack(">I4s", start)
        head = 8
        if length == 1:
            length, head = int.from_bytes(file[at + 8 : at + 16], "big"), 16
        end = at + length if length else len(file)
        if end < at + head:
            return
        yield kind, file[at + head : end]
        at = end


def _opened(file: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(file), formats=["AVIF"])
    except _DAMAGE as error:
        raise bad_image(f"breaks off, is damaged or too large: {error}") from error
