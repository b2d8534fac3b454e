"""Damaged pictures, the same for the same seed: bytes, lengths, order and size of a file, with right checksums or wrong."""

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

_EDGES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_PNG = b"\x89PNG\r\n\x1a\n"


def seeds() -> dict[str, list[bytes]]:
    """Small whole files of each format, in several modes."""
    pixels = np.random.default_rng(5).integers(0, 256, (40, 56, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    rgb, exif = image.convert("RGB"), Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [rgb.transpose(Image.Transpose.ROTATE_180)]}
    deep = Image.fromarray(np.arange(40 * 56, dtype=np.uint16).reshape(40, 56))
    return {
        "PNG": [
            _saved(image, "PNG"),
            _saved(rgb.convert("P"), "PNG", transparency=3),
            _saved(deep, "PNG"),
            _saved(rgb, "PNG", **frames),
        ],
        "JPEG": [
            _saved(rgb, "JPEG", exif=exif),
            _saved(rgb, "JPEG", progressive=True),
            _saved(rgb.convert("CMYK"), "JPEG"),
        ],
        "WEBP": [_saved(image, "WEBP"), _saved(rgb, "WEBP", lossless=True), _saved(rgb, "WEBP", **frames)],
    }


def mutated(whole: bytes, choose: random.Random) -> bytes:
    """One damaged file."""
    data = bytearray(whole)
    for _ in range(choose.randint(1, 4)):
        # Most decisions are made in the first bytes.
        place = int(choose.random() ** choose.choice((1, 4)) * len(data)) if data else 0
        match choose.randrange(6):
            case 0:
                data[place : place + 1] = bytes([choose.randrange(256)])
            case 1:
                data[place : place + 1] = bytes([(data[place] if data else 0) ^ (1 << choose.randrange(8))])
            case 2:
                edge = choose.choice(_EDGES)
                data[place : place + 4] = struct.pack(choose.choice("<>") + "I", edge)
            case 3:
                del data[place : place + choose.choice((1, 4, 100))]
            case 4:
                data[place:place] = data[max(0, place - 64) : place]
            case _:
                del data[max(place, 16) :]
    if data.startswith(_PNG) and choose.random() < 0.7:
        return with_checksums(bytes(data))
    return bytes(data)


def mutations(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files with the names of their formats."""
    choose, files = random.Random(seed), seeds()
    for number in range(count):
        name = list(files)[number % len(files)]
        yield name, mutated(choose.choice(files[name]), choose)


def with_checksums(png: bytes) -> bytes:
    """The PNG with right checksums, so that damage reaches the decoder behind them."""
    parts, at = [_PNG], len(_PNG)
    while at + 12 <= len(png):
        (size,) = struct.unpack_from(">I", png, at)
        body = png[at + 4 : at + 8 + size]
        parts.append(png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + size
    return b"".join(parts) + png[at:]


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
