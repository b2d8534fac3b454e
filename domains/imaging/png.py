"""A fast PNG writer (W3C PNG, third edition).

A file of ours is `IHDR`, the texts of `png_chunks.py`, one `IDAT`, `IEND`.

Three choices, all measured by `bench/encode.py`:

* The filter is UP on every row: one subtraction of whole rows, within 3 % of choosing the best filter for each row.
* ISA-L deflates with a window of four bytes. On filtered pictures a far match is mostly an accident, and costs more
  bits than the literals it replaces; what is left are runs (distance 1, 3 or 4) and a good Huffman code. This is both
  smaller and faster than the usual 32 KiB. The zlib header still declares 32 KiB, which every reader allows.
* A picture without noise is the exception: far matches pay there. A drawing with clean flat areas packs best without a
  filter, an enlarged one with the filter UP. If a band across the middle packs well, it is packed in these ways too, and
  the best way is taken for the whole.

Known weakness: a picture enlarged without any noise is up to a fifth larger than from a slow encoder.

The bytes depend on the pixels alone, never on the number of cores.
"""

import struct

import numpy as np
from isal import igzip_lib
from numpy.typing import NDArray

from domains.imaging.metadata import Metadata
from domains.imaging.png_chunks import SIGNATURE, chunk, texts

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""Channels to PNG's colour type."""
_FILTER_NONE, _FILTER_UP = 0, 2
_LEVEL = 1
_NEAR_BITS, _FAR_BITS = 2, 15
"""Window of the deflater, as a power of two in bytes."""
_CLEAN_WAYS = ((_FILTER_UP, _NEAR_BITS), (_FILTER_UP, _FAR_BITS), (_FILTER_NONE, _FAR_BITS))
"""Filter and window; the first is the one for pictures with noise."""
_BAND = 32
"""The trial band is 1/_BAND of the rows, but at least _BAND rows."""
_CLEAN_BELOW = 1 / 4
"""A picture packed to less than this share of its pixels has hardly any noise."""


def write(pixels: NDArray[np.uint8], metadata: Metadata) -> bytes:
    """(height, width) or (height, width, 3 | 4) to a PNG file of eight bits a sample."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    parts = [SIGNATURE, *chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0))]
    parts += texts(metadata)
    parts += chunk(b"IDAT", _packed(pixels.reshape(height, width * channels)))
    return b"".join([*parts, *chunk(b"IEND", b"")])


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
