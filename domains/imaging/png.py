"""A fast PNG writer, and the reader of its texts (W3C PNG, third edition).

A file of ours is `IHDR`, an `iTXt` chunk for each text (section 11.3.3.4: keyword, "not compressed", no language,
no translated keyword, UTF-8 text), one `IDAT`, `IEND`. A1111's parameters are `tEXt` where Latin-1 has all their
characters, as Pillow and A1111 write them.

Three choices, all measured by `bench/encode.py`:

* The filter is UP on every row: one subtraction of whole rows, within 3 % of choosing the best filter for each row.
* ISA-L deflates with a window of four bytes. On filtered pictures a far match is mostly an accident, and costs more
  bits than the literals it replaces; what is left are runs (distance 1, 3 or 4) and a good Huffman code. This is both
  smaller and faster than the usual 32 KiB. The zlib header still declares 32 KiB, which every reader allows.
* A picture without noise is the exception. What repeats from afar pays there: of a drawing with clean flat areas the
  rows as they are, of an enlarged one the differences. A band across the middle that packs well is packed in these
  ways too, and the best way is taken for the whole.

Where it falls short: a picture enlarged without any noise comes out up to a fifth larger than a patient encoder makes it.

The bytes depend on the pixels alone, never on the number of cores.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

from domains.imaging.bad_image import bad_image
from domains.imaging.metadata import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = "deviceops"
"""The keyword of the chunk that holds the manifest."""
TEXT_LIMIT_BYTES = 16 << 20
"""A text that another tool has compressed is unpacked up to here."""
_XMP_KEYWORD, _PARAMETERS_KEYWORD = "XML:com.adobe.xmp", "parameters"
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""Channels to PNG's colour type."""
_FILTER_NONE, _FILTER_UP = 0, 2
_LEVEL = 1
_NEAR_BITS, _FAR_BITS = 2, 15
"""Window of the deflater, as a power of two in bytes."""
_CLEAN_WAYS = ((_FILTER_UP, _NEAR_BITS), (_FILTER_UP, _FAR_BITS), (_FILTER_NONE, _FAR_BITS))
"""Filter and window; the first is the one for pictures with noise."""
_BAND = 32
"""The band on trial is this part of the rows, and at least as many rows."""
_CLEAN_BELOW = 1 / 4
"""What is packed to less than this share of its pixels has hardly any noise."""


def write(pixels: NDArray[np.uint8], metadata: Metadata) -> bytes:
    """(height, width) or (height, width, 3 | 4) to a PNG file of eight bits a sample."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    parts = [SIGNATURE, *_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0))]
    parts += _texts(metadata)
    parts += _chunk(b"IDAT", _packed(pixels.reshape(height, width * channels)))
    return b"".join([*parts, *_chunk(b"IEND", b"")])


def _texts(metadata: Metadata) -> Iterator[bytes]:
    if metadata.manifest is not None:
        yield from _itxt(KEYWORD, metadata.manifest.encode())
    if metadata.parameters is not None:
        try:
            latin = metadata.parameters.encode("latin-1")
        except UnicodeEncodeError:
            yield from _itxt(_PARAMETERS_KEYWORD, metadata.parameters.encode())
        else:
            yield from _chunk(b"tEXt", _PARAMETERS_KEYWORD.encode() + b"\0" + latin)
    if metadata.xmp is not None:
        yield from _itxt(_XMP_KEYWORD, metadata.xmp)


def _itxt(keyword: str, text: bytes) -> tuple[bytes, bytes, bytes]:
    return _chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text)


def _packed(rows: NDArray[np.uint8]) -> bytes:
    return _pack(rows, *_best_way(rows))


def _best_way(rows: NDArray[np.uint8]) -> tuple[int, int]:
    half, middle = max(_BAND, len(rows) // _BAND) // 2, len(rows) // 2
    band = rows[max(0, middle - half) : middle + half]
    usual, *others = _CLEAN_WAYS
    size = len(_pack(band, *usual))
    if size >= band.size * _CLEAN_BELOW:
        return usual
    sizes = {usual: size} | {way: len(_pack(band, *way)) for way in others}
    return min(sizes, key=sizes.__getitem__)


def _pack(rows: NDArray[np.uint8], filter_type: int, window_bits: int) -> bytes:
    return _deflate(_filtered_up(rows) if filter_type == _FILTER_UP else _unfiltered(rows), window_bits)


def _filtered_up(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each row minus the row above it (modulo 256), behind a byte that names the filter."""
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def _unfiltered(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(rows, ((0, 0), (1, 0)), constant_values=_FILTER_NONE)


def _deflate(filtered: NDArray[np.uint8], window_bits: int) -> bytes:
    return igzip_lib.compress(filtered.data, _LEVEL, igzip_lib.COMP_ZLIB, igzip_lib.MEM_LEVEL_DEFAULT, window_bits)


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    checksum = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return struct.pack(">I4s", len(data), kind), data, struct.pack(">I", checksum)


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
        compressed, _method, rest = data[len(start)], data[len(start) + 1], bytes(data[len(start) + 2 :])
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
