"""Texts as EXIF (CIPA DC-008), for JPEG, WebP and AVIF: its field for free text, UserComment.

The block is a big-endian TIFF structure: one directory that points to the Exif directory, which holds UserComment
(0x9286). Its first eight bytes name the character code, `ASCII` or `UNICODE` (UTF-16, in the block's byte order). Our
manifest begins with `deviceops:`, since cameras and other programs write comments too.

A1111 looks for its parameters in UserComment, always as UTF-16 in big-endian order. The manifest of a
file with parameters is in XPComment (0x9C9C, UTF-16 in little-endian order with a NUL at its end), which Windows shows
as the comment.
"""

import struct

from PIL import Image

from domains.imaging.bad_image import bad_image

HEADER = b"Exif\0\0"
"""Stands before the TIFF structure in a JPEG segment."""
MARK = "deviceops:"
"""What our comment begins with."""
_ASCII, _UNICODE = b"ASCII\0\0\0", b"UNICODE\0"
_EXIF_DIRECTORY, _USER_COMMENT, _XP_COMMENT = 0x8769, 0x9286, 0x9C9C
_BYTE, _LONG, _UNDEFINED = 1, 4, 7
_FIRST_DIRECTORY = 8
_ENTRY = struct.Struct(">HHII")
"""Tag, type, count, value or its place."""


def block(manifest: str | None, parameters: str | None) -> bytes:
    """The TIFF structure whose only content is these texts; at least one of them."""
    beside = b"" if manifest is None or parameters is None else (MARK + manifest + "\0").encode("utf-16-le")
    comment = _comment(manifest or "") if parameters is None else _UNICODE + parameters.encode("utf-16-be")
    entries = 2 if beside else 1
    second = _FIRST_DIRECTORY + _directory_bytes(entries)
    content = second + _directory_bytes(1)
    first = [_ENTRY.pack(_EXIF_DIRECTORY, _LONG, 1, second)]
    if beside:
        first.append(_ENTRY.pack(_XP_COMMENT, _BYTE, len(beside), content + len(comment)))
    user_comment = _ENTRY.pack(_USER_COMMENT, _UNDEFINED, len(comment), content)
    head = b"MM\0*" + struct.pack(">I", _FIRST_DIRECTORY)
    return b"".join((head, _directory(first), _directory([user_comment]), comment, beside))


def _directory_bytes(entries: int) -> int:
    return 2 + entries * _ENTRY.size + 4


def _directory(entries: list[bytes]) -> bytes:
    return b"".join((struct.pack(">H", len(entries)), *entries, b"\0\0\0\0"))  # no further directory


def _comment(manifest: str) -> bytes:
    text = MARK + manifest
    return _ASCII + text.encode() if text.isascii() else _UNICODE + text.encode("utf-16-be")


def read(tiff: bytes) -> str | None:
    """The manifest in a TIFF structure of ours, even if another program has rewritten it; None without one."""
    exif = Image.Exif()
    try:
        exif.load(HEADER + tiff)
        comment, beside = exif.get_ifd(_EXIF_DIRECTORY).get(_USER_COMMENT), exif.get(_XP_COMMENT)
    except (SyntaxError, ValueError, KeyError, OSError, struct.error) as error:
        raise bad_image("has a damaged EXIF block") from error
    texts = (
        _text(comment, tiff[:2] == b"MM") if isinstance(comment, bytes) else "",
        beside.decode("utf-16-le", errors="replace").removesuffix("\0") if isinstance(beside, bytes) else "",
    )
    return next((text.removeprefix(MARK) for text in texts if text.startswith(MARK)), None)


def _text(comment: bytes, big_endian: bool) -> str:
    code, text = comment[:8], comment[8:]
    if code == _UNICODE:
        return text.decode("utf-16-be" if big_endian else "utf-16-le", errors="replace")
    return text.decode("ascii", errors="replace")
