"""The hashes of one file's content, all from one reading.

Other tools print: AutoV2, and A1111's `[0123456789]`, the first 10 digits of `sha256`; AutoV3, the first 12 digits of
`data_sha256`, which is kohya's `sshs_model_hash`; and A1111's older model hash, `short_hash`
(kohya-ss/sd-scripts, library/train_util.py: `calculate_sha256`, `addnet_hash_safetensors`, `model_hash`).
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from typing import BinaryIO

import msgspec

from domains.model.safetensors_header import Header
from domains.stop import never

_CHUNK = 4 * 1024 * 1024
_SHORT_BEGIN, _SHORT_END = 0x100000, 0x110000
_SHORT_DIGITS = 8


class HashCancelled(Exception):
    """The hashing was cancelled."""


class ContentHash(msgspec.Struct, frozen=True, kw_only=True):
    """The hashes of a file, in lower-case hex."""

    sha256: str
    """Over all bytes."""
    data_sha256: str = ""
    """Over the bytes after a safetensors header. Empty: the file has no such header, or an older version hashed it."""
    short_hash: str = ""
    """8 digits over the 64 KiB from 1 MiB on. Empty: an older version hashed it."""


def content_hash(
    file: BinaryIO,
    data_offset: int | None = None,
    cancelled: Callable[[], bool] = never,
    read: Callable[[int], None] = lambda size: None,
) -> ContentHash:
    """The hashes of an open file as long as it is now. `data_offset`: the end of its safetensors header.

    `read` takes each piece's size. Raises HashCancelled, OSError.
    """
    whole, short = hashlib.sha256(), hashlib.sha256()
    data = None if data_offset is None else hashlib.sha256()
    at, left = 0, os.fstat(file.fileno()).st_size  # a file that grows as fast as it is read would be read for ever
    file.seek(0)
    while chunk := file.read(min(left, _CHUNK)):
        if cancelled():
            raise HashCancelled
        whole.update(chunk)
        short.update(memoryview(chunk)[max(0, _SHORT_BEGIN - at) : max(0, _SHORT_END - at)])
        if data is not None and data_offset is not None:
            data.update(memoryview(chunk)[max(0, data_offset - at) :])
        at, left = at + len(chunk), left - len(chunk)
        read(len(chunk))
    return ContentHash(
        sha256=whole.hexdigest(),
        data_sha256="" if data is None else data.hexdigest(),
        short_hash=short.hexdigest()[:_SHORT_DIGITS],
    )


def tensor_hash(header: Header, data_sha256: str) -> str:
    """The hash of a file's tensors: two files with the same tensors in the same order have it, whatever their metadata.

    sha256 over, for each tensor in order of its place: name, NUL, dtype, NUL, shape with commas, a newline; then the
    `data_sha256` in hex.
    """
    whole = hashlib.sha256()
    for tensor in header.tensors:
        whole.update(f"{tensor.name}\0{tensor.dtype}\0{','.join(map(str, tensor.shape))}\n".encode())
    whole.update(data_sha256.encode())
    return whole.hexdigest()


def weights_hash(tensor_hashes: Iterable[str]) -> str:
    """The hash over the weights of a component with these files, in order of their paths. Empty: one is not known."""
    known = list(tensor_hashes)
    if len(known) <= 1 or not all(known):
        return known[0] if len(known) == 1 else ""
    return hashlib.sha256("\n".join(known).encode()).hexdigest()
