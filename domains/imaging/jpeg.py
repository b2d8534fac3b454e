"""JPEG containers (ITU-T T.81 annex B): the segments before the picture data, and our texts among them."""

import struct
from collections.abc import Iterator

from domains.imaging import exif
from domains.imaging.bad_image import bad_image
from domains.imaging.metadata import Metadata

SIGNATURE = b"\xff\xd8\xff"
_APP1, _APP9, _APP11 = 0xE1, 0xE9, 0xEB
_XMP, _MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
"""Begin an APP1 segment with a packet (XMP part 3), and one with a part of what did not fit into it."""
_C2PA_LABEL = b"c2pa"
"""Stands in the JUMBF boxes of a C2PA store, which lie in APP11 segments."""
_PART = b"deviceops manifest\0"
"""Begins an APP9 segment with a part of a manifest that is too long for EXIF; then its number from 0, in one byte."""
_SEGMENT_LIMIT = 65_533
"""A segment's length is a 16-bit number that counts itself."""
_START_OF_SCAN, _END = 0xDA, 0xD9
_FRAME_STARTS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15, without DHT, JPG and DAC, which lie among them."""
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


PARAMETERS_LIMIT_BYTES = (_SEGMENT_LIMIT - len(exif.HEADER) - len(exif.block(None, ""))) // 2 * 2
"""Most bytes of a parameters text in UTF-16, whole characters: readers of EXIF do not join segments."""


def with_metadata(file: bytes, metadata: Metadata) -> bytes:
    """`file` with its texts right behind the start marker, where EXIF wants them.

    A manifest that does not fit into one segment of 64 KiB (two long prompts) goes into several of our own: readers of
    EXIF do not join segments, so only `read_manifest` finds it there.
    A JFIF segment stays where it was, now behind; readers take either order.
    """
    parts = _texts(metadata.manifest, metadata.parameters) if metadata.texts else []
    if metadata.xmp is not None:
        parts.append(_segment(_APP1, _XMP + metadata.xmp))
    return b"".join((file[:2], *parts, file[2:]))


def _texts(manifest: str | None, parameters: str | None) -> list[bytes]:
    block = exif.HEADER + exif.block(manifest, parameters)
    if len(block) <= _SEGMENT_LIMIT:
        return [_segment(_APP1, block)]
    parts = [] if parameters is None else [_segment(_APP1, exif.HEADER + exif.block(None, parameters))]
    text, size = (manifest or "").encode(), _SEGMENT_LIMIT - len(_PART) - 1
    pieces = (text[begin : begin + size] for begin in range(0, len(text), size))
    return [*parts, *(_segment(_APP9, _PART + bytes([n]) + piece) for n, piece in enumerate(pieces))]


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def segments(file: bytes) -> Iterator[tuple[int, memoryview]]:
    """(marker, data) of each segment before the first scan; raises BAD_IMAGE where the file breaks off."""
    view, at = memoryview(file), 2
    while True:
        if at + 1 >= len(view) or view[at] != 0xFF:
            raise bad_image(f"breaks off or is damaged before the picture data, at byte {at}")
        marker = view[at + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:  # a fill byte, or a marker alone
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (_START_OF_SCAN, _END):
            return
        length = int.from_bytes(view[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(view):
            raise bad_image(f"breaks off inside the JPEG segment {marker:#04x} at byte {at}")
        yield marker, view[at + 4 : at + 2 + length]
        at += 2 + length


def size(file: bytes) -> tuple[int, int]:
    """(width, height) that the frame header declares, before any EXIF orientation."""
    for marker, data in segments(file):
        if marker in _FRAME_STARTS and len(data) >= 5:
            height, width = struct.unpack_from(">HH", data, 1)
            return width, height
    raise bad_image("has no JPEG frame header")


def read_manifest(file: bytes) -> str | None:
    """The manifest in the EXIF segment, or in segments of our own; None without one."""
    parts: dict[int, bytes] = {}
    found: str | None = None
    for marker, data in segments(file):
        if marker == _APP1 and bytes(data[:6]) == exif.HEADER and found is None:
            found = exif.read(bytes(data[6:]))
        elif marker == _APP9 and bytes(data[: len(_PART)]) == _PART and len(data) > len(_PART):
            parts[data[len(_PART)]] = bytes(data[len(_PART) + 1 :])
    return found if found is not None or not parts else _joined(parts)


def packets(file: bytes) -> Iterator[tuple[str, bytes]]:
    """("xmp" or "c2pa", content) of each segment that can hold a mark."""
    for marker, data in segments(file):
        content = bytes(data)
        if marker == _APP1 and content.startswith((_XMP, _MORE_XMP)):
            yield "xmp", content
        elif marker == _APP11 and _C2PA_LABEL in content:
            yield "c2pa", content


def _joined(parts: dict[int, bytes]) -> str:
    try:
        return b"".join(parts[n] for n in range(len(parts))).decode()
    except (KeyError, UnicodeDecodeError) as error:
        raise bad_image("has a manifest of which parts are missing or damaged") from error
