"""The manifest as EXIF (CIPA DC-008), for JPEG and WebP: its field for free text, UserComment.

The block is a little-endian TIFF structure: one directory that points to the Exif directory, which holds UserComment
(0x9286). Its first eight bytes name the character code, `ASCII` or `UNICODE` (UTF-16, in the block's byte order). Our
text begins with `deviceops:`, since cameras and other programs write comments too.
"""

import struct

from PIL import Image

from domains.imaging.bad_image import bad_image

HEADER = b"Exif\0\0"
"""Stands before the TIFF structure in a JPEG segment."""
MARK = "deviceops:"
"""What our comment begins with."""
_ASCII, _UNICODE = b"ASCII\0\0\0", b"UNICODE\0"
_EXIF_DIRECTORY, _USER_COMMENT = 0x8769, 0x9286
_LONG, _UNDEFINED = 4, 7


def block(manifest: str) -> bytes:
    """The TIFF structure whose only content is the manifest."""
    text = MARK + manifest
    comment = _ASCII + text.encode() if text.isascii() else _UNICODE + text.encode("utf-16-le")
    directory = struct.Struct("<HHHIII")  # count of entries, then tag, type, count, value; offset of the next directory
    second = 8 + directory.size
    return b"".join(
        (
            b"II*\0" + struct.pack("<I", 8),
            directory.pack(1, _EXIF_DIRECTORY, _LONG, 1, second, 0),
            directory.pack(1, _USER_COMMENT, _UNDEFINED, len(comment), second + directory.size, 0),
            comment,
        )
    )


def read(tiff: bytes) -> str | None:
    """The manifest in a TIFF structure of ours, whoever has rewritten it since; None without one."""
    exif = Image.Exif()
    try:
        exif.load(HEADER + tiff)
        comment = exif.get_ifd(_EXIF_DIRECTORY).get(_USER_COMMENT)
    except (SyntaxError, ValueError, KeyError, OSError, struct.error) as error:
        raise bad_image("has a damaged EXIF block") from error
    text = _text(comment, tiff[:2] == b"MM") if isinstance(comment, bytes) else ""
    return text.removeprefix(MARK) if text.startswith(MARK) else None


def _text(comment: bytes, big_endian: bool) -> str:
    code, text = comment[:8], comment[8:]
    if code == _UNICODE:
        return text.decode("utf-16-be" if big_endian else "utf-16-le", errors="replace")
    return text.decode("ascii", errors="replace")
