"""WebP containers (RFC 9649): RIFF chunks, and our texts as `EXIF` and `XMP ` chunks of the extended format."""

import struct
from collections.abc import Iterator

from domains.imaging import exif
from domains.imaging.bad_image import bad_image
from domains.imaging.metadata import Metadata

_HAS_XMP, _HAS_EXIF, _HAS_ALPHA = 0x04, 0x08, 0x10
_VP8L_SIGNATURE = 0x2F
_VP8_START = b"\x9d\x01\x2a"


def is_webp(file: bytes) -> bool:
    """Whether the file begins with a WebP header."""
    return file[:4] == b"RIFF" and file[8:12] == b"WEBP"


def chunks(file: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(kind, data) of each chunk; raises BAD_IMAGE where the file breaks off."""
    view = memoryview(file)
    at, end = 12, min(len(view), 8 + int.from_bytes(view[4:8], "little"))
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", view, at)
        if at + 8 + length > len(view):
            raise bad_image(f"breaks off inside the WebP chunk {kind!r} at byte {at}")
        yield kind, view[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def size(file: bytes) -> tuple[int, int]:
    """(width, height) of the canvas, from the first chunk."""
    kind, data = next(chunks(file), (b"", memoryview(b"")))
    if kind == b"VP8X" and len(data) >= 10:
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L" and len(data) >= 5 and data[0] == _VP8L_SIGNATURE:
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(data) >= 10 and bytes(data[3:6]) == _VP8_START:
        width, height = struct.unpack_from("<HH", data, 6)
        return width & 0x3FFF, height & 0x3FFF
    raise bad_image("has no WebP picture header")


def with_metadata(file: bytes, metadata: Metadata) -> bytes:
    """`file` in the extended format, with its texts as its last chunks."""
    flags, parts = 0, list[bytes]()
    for kind, data in chunks(file):
        if kind == b"VP8X":
            flags |= data[0]
        else:
            flags |= _HAS_ALPHA if kind == b"VP8L" and data[4] & 0x10 else 0  # VP8L's own alpha bit
            parts.append(_chunk(kind, bytes(data)))
    if metadata.texts:
        flags |= _HAS_EXIF
        parts.append(_chunk(b"EXIF", exif.block(metadata.manifest, metadata.parameters)))
    if metadata.xmp is not None:
        flags |= _HAS_XMP
        parts.append(_chunk(b"XMP ", metadata.xmp))
    width, height = size(file)
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"".join((_chunk(b"VP8X", struct.pack("<I", flags) + canvas), *parts))
    return struct.pack("<4sI4s", b"RIFF", len(body) + 4, b"WEBP") + body


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(data)) + data + b"\0" * (len(data) % 2)


def read_manifest(file: bytes) -> str | None:
    """The manifest in the `EXIF` chunk; None without one."""
    for kind, data in chunks(file):
        if kind == b"EXIF":
            return exif.read(bytes(data).removeprefix(exif.HEADER))
    return None


def packets(file: bytes) -> Iterator[tuple[str, bytes]]:
    """("xmp" or "c2pa", content) of each chunk that can hold a mark."""
    for kind, data in chunks(file):
        if kind in (b"XMP ", b"C2PA"):
            yield ("xmp" if kind == b"XMP " else "c2pa"), bytes(data)
