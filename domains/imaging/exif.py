"""The manifest in JPEG and WebP: an EXIF block whose ImageDescription and UserComment tools can show.

EXIF 2.32: a TIFF structure, here little-endian with one IFD and one entry, UserComment (0x9286) inside the Exif IFD, which
begins with the eight bytes that name its encoding. JPEG keeps it in an APP1 segment (at most 65,533 bytes), WebP in an EXIF
chunk of the extended format (RIFF container specification).
"""

import struct

from domains.errors import ErrorReason, InvalidRequest, Violation

_PREFIX = b"Exif\0\0"
_UNICODE = b"UNICODE\0"
_SEGMENT_LIMIT = 65_533


def block(manifest: str) -> bytes:
    """The TIFF structure with the manifest as UserComment (UTF-16LE, as EXIF's UNICODE means in a little-endian file)."""
    comment = _UNICODE + manifest.encode("utf-16-le")
    exif_ifd = 26
    first = struct.pack("<HHHIII", 1, 0x8769, 4, 1, exif_ifd, 0)
    second = struct.pack("<HHHIII", 1, 0x9286, 7, len(comment), exif_ifd + 18, 0)
    return b"II*\0" + struct.pack("<I", 8) + first + second + comment


def add_to_jpeg(file: bytes, manifest: str) -> bytes:
    """Behind the start marker, where EXIF demands it."""
    segment = _PREFIX + block(manifest)
    if len(segment) > _SEGMENT_LIMIT:
        message = "the manifest is too long for a JPEG's 64 KiB segment; ask for PNG or WebP, or set embed_manifest to false"
        violation = Violation(field="generation.output.media_type", message=message)
        raise InvalidRequest([violation], ErrorReason.UNSUPPORTED_COMBINATION)
    return b"".join((file[:2], b"\xff\xe1", struct.pack(">H", len(segment) + 2), segment, file[2:]))


def add_to_webp(file: bytes, manifest: str, width_px: int, height_px: int) -> bytes:
    """The simple format made extended: a VP8X chunk first, the EXIF chunk last."""
    body = file[12:]
    canvas = struct.pack("<II", width_px - 1, height_px - 1)
    vp8x = b"VP8X" + struct.pack("<IB3x", 10, 0x08) + canvas[:3] + canvas[4:7]
    data = block(manifest)
    exif = b"EXIF" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    inner = b"WEBP" + vp8x + body + exif
    return b"RIFF" + struct.pack("<I", len(inner)) + inner
