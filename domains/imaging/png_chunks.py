"""PNG containers (W3C PNG, third edition): chunks, and the texts among them.

Each text is an `iTXt` chunk (section 11.3.3.4: keyword, "not compressed", no language, no translated keyword, UTF-8 text).
A1111's parameters are `tEXt` where Latin-1 has all their characters, as Pillow and A1111 write them.
"""

import struct
import zlib
from collections.abc import Iterator

from isal import isal_zlib

from domains.imaging.bad_image import bad_image
from domains.imaging.metadata import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = "deviceops"
"""The keyword of the chunk that holds the manifest."""
TEXT_LIMIT_BYTES = 16 << 20
"""Largest text that is unpacked, if another tool has compressed it."""
_XMP_KEYWORD, _PARAMETERS_KEYWORD = "XML:com.adobe.xmp", "parameters"


def chunk(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    """The parts of a chunk, to be joined."""
    checksum = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return struct.pack(">I4s", len(data), kind), data, struct.pack(">I", checksum)


def texts(metadata: Metadata) -> Iterator[bytes]:
    """The parts of the chunks that hold a file's texts, to be joined."""
    if metadata.manifest is not None:
        yield from _itxt(KEYWORD, metadata.manifest.encode())
    if metadata.parameters is not None:
        try:
            latin = metadata.parameters.encode("latin-1")
        except UnicodeEncodeError:
            yield from _itxt(_PARAMETERS_KEYWORD, metadata.parameters.encode())
        else:
            yield from chunk(b"tEXt", _PARAMETERS_KEYWORD.encode() + b"\0" + latin)
    if metadata.xmp is not None:
        yield from _itxt(_XMP_KEYWORD, metadata.xmp)


def _itxt(keyword: str, text: bytes) -> tuple[bytes, bytes, bytes]:
    return chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text)


def chunks(file: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(kind, data) of each chunk up to `IEND`; raises BAD_IMAGE where the file breaks off."""
    view, at = memoryview(file), len(SIGNATURE)
    while at < len(view):
        if at + 12 > len(view):
            raise bad_image(f"breaks off inside a PNG chunk's header at byte {at}")
        length, kind = struct.unpack_from(">I4s", view, at)
        if at + 12 + length > len(view):
            raise bad_image(f"breaks off inside the PNG chunk {kind!r} at byte {at}")
        yield kind, view[at + 8 : at + 8 + length]
        at += 12 + length


def size(file: bytes) -> tuple[int, int]:
    """(width, height) that the header declares."""
    if len(file) < 33 or file[12:16] != b"IHDR":
        raise bad_image("has no PNG header")
    width, height = struct.unpack_from(">II", file, 16)
    return width, height


def read_manifest(file: bytes) -> str | None:
    """The text of our `iTXt` chunk, plain or compressed; None without one."""
    for kind, data in chunks(file):
        if (text := _international_text(kind, data, KEYWORD)) is not None:
            try:
                return text.decode()
            except UnicodeDecodeError as error:
                raise bad_image("has a damaged manifest chunk") from error
    return None


def packets(file: bytes) -> Iterator[tuple[str, bytes]]:
    """("xmp" or "c2pa", content) of each chunk that can hold a mark."""
    for kind, data in chunks(file):
        if kind == b"caBX":
            yield "c2pa", bytes(data)
        elif (text := _international_text(kind, data, _XMP_KEYWORD)) is not None:
            yield "xmp", text


def _international_text(kind: bytes, data: memoryview, keyword: str) -> bytes | None:
    """The text of an `iTXt` chunk with this keyword, unpacked; None for any other chunk."""
    start = keyword.encode() + b"\0"
    if kind != b"iTXt" or bytes(data[: len(start)]) != start:
        return None
    try:
        compressed, rest = (
            data[len(start)],
            bytes(data[len(start) + 2 :]),
        )  # between them the method, of which there is one
        _language, _translated, text = rest.split(b"\0", 2)
        return _unpacked(text, keyword) if compressed == 1 else text
    except (ValueError, IndexError, zlib.error) as error:
        raise bad_image(f"has a damaged text chunk {keyword!r}") from error


def _unpacked(text: bytes, keyword: str) -> bytes:
    unpacker = zlib.decompressobj()
    plain = unpacker.decompress(text, TEXT_LIMIT_BYTES)
    if not unpacker.eof:
        raise bad_image(f"has a text {keyword!r} that breaks off or is larger than {TEXT_LIMIT_BYTES} bytes")
    return plain
