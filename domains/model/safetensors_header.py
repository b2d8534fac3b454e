"""Reads the header of a safetensors file strictly, and nothing else.

Format (huggingface/safetensors): 8 bytes little-endian length N, N bytes of JSON `{name: {dtype, shape, data_offsets}}`
with an optional `__metadata__`, then the tensors. Everything a later read will trust is checked here, on the file's own
size: nothing is allocated for what a damaged header claims.
"""

import math
import os
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
from msgspec import Meta

from domains.errors import DataLoss, ErrorReason, excerpt
from domains.model.header_json import METADATA, entries, leading_metadata
from domains.model.regular_file import open_regular

MAX_HEADER_BYTES = 16 * 1024 * 1024
"""The format allows 100 MB; headers of real models stay below 1 MiB."""
MAX_TENSORS = 32_768
"""Most tensors of one file; the largest files in use have a few thousand."""
_MAX_NAME = 512
_USUAL_BYTES = 256
"""Most bytes of an entry, on average, in a header that is parsed at once."""
_MAX_RANK = 16
_MAX_EDGE = 2**48
"""Only an empty tensor can have such an edge and pass the check of its bytes."""

DTYPE_BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8},
    **{"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
    **{"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32},
    **{"I64": 64, "U64": 64, "F64": 64, "C64": 64},
}


class TensorEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where one tensor lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Offset within the data part, in bytes."""
    end: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a file before its data."""

    tensors: tuple[TensorEntry, ...]
    metadata: dict[str, str]
    data_offset: int
    """Where the data part begins in the file."""


class _Entry(msgspec.Struct, frozen=True):
    # Unknown fields are ignored, as the format's own library does.
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


_Edge = Annotated[int, Meta(ge=0, lt=_MAX_EDGE)]
_Offset = Annotated[int, Meta(ge=0)]


class _PlainEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    # Entries out of these bounds are judged one after another.
    dtype: str
    shape: Annotated[tuple[_Edge, ...], Meta(max_length=_MAX_RANK)]
    data_offsets: tuple[_Offset, _Offset]


_plain_entries = msgspec.json.Decoder(dict[str, _PlainEntry]).decode


def read_header(path: Path) -> Header:
    """Read the header of the file at a real path. Raises DataLoss (MODEL_CORRUPT): the file, and what is wrong with it."""
    try:
        with open_regular(path) as file:
            return header_of(file, path)
    except OSError as error:
        raise _corrupt(path, f"cannot be read: {error.strerror}") from error


def header_of(file: BinaryIO, path: Path) -> Header:
    """Read the header of a file that was opened at `path`, from its beginning. Raises as `read_header`, and OSError."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    prefix = file.read(8)
    if len(prefix) < 8:
        raise _corrupt(path, f"has {size} bytes; a safetensors file begins with an 8-byte header length")
    length = int.from_bytes(prefix, "little")
    if length > size - 8:
        raise _corrupt(path, f"claims a header of {length} bytes in a file of {size}")
    if length > MAX_HEADER_BYTES:
        raise _corrupt(path, f"claims a header of {length} bytes; at most {MAX_HEADER_BYTES} are read")
    return _checked(path, file.read(length), data_bytes=size - 8 - length, data_offset=8 + length)


def _checked(path: Path, text: bytes, data_bytes: int, data_offset: int) -> Header:
    metadata: dict[str, str] = {}
    tensors: list[TensorEntry] = []
    quick = _quick(text)
    if quick is not None:
        metadata = _words(path, quick.metadata)
        tensors = quick.tensors
    for name, value in () if quick is not None else _pairs(path, text):
        if name == METADATA:
            metadata = _words(path, {} if value is None else value)
        elif len(tensors) == MAX_TENSORS:
            raise _corrupt(path, f"lists more than {MAX_TENSORS} tensors")
        else:
            tensors.append(_tensor(path, name, _entry(path, name, value)))
    tensors.sort(key=attrgetter("begin", "end"))
    for wrong in _layout_faults(tensors, data_bytes):
        raise _corrupt(path, wrong)
    return Header(tensors=tuple(tensors), metadata=metadata, data_offset=data_offset)


class _Quick(msgspec.Struct, frozen=True, kw_only=True):
    tensors: list[TensorEntry]
    metadata: object


def _quick(text: bytes) -> _Quick | None:
    """A plain header, parsed at once. None: `entries` has to judge it, one entry after another.

    Plain: metadata only at the beginning, no escapes, and each of an entry's keys as often as there are entries, so that no
    key can come twice. The counts bound what is built before anything is judged.
    """
    if not text.startswith(b"{"):
        return None
    metadata, rest = leading_metadata(text)
    count = rest.count(b'"data_offsets"')
    if count > MAX_TENSORS or len(rest) > _USUAL_BYTES * (count + 4):
        return None
    if b"\\" in rest or METADATA.encode() in rest:
        return None
    if any(rest.count(key) != count for key in (b'"dtype"', b'"shape"')):
        return None
    try:
        plain = _plain_entries(rest)
    except (ValueError, RecursionError):
        return None
    if len(plain) != count or max(map(len, plain), default=0) > _MAX_NAME:
        return None
    tensors = _plain_tensors(plain)
    return None if tensors is None else _Quick(tensors=tensors, metadata=metadata)


def _plain_tensors(plain: Mapping[str, _PlainEntry]) -> list[TensorEntry] | None:
    """The tensors. None: a dtype is unknown, or the bytes are not as many as a shape takes."""
    tensors = list[TensorEntry]()
    for name, entry in plain.items():
        begin, end = entry.data_offsets
        bits = DTYPE_BITS.get(entry.dtype)
        if bits is None or math.prod(entry.shape) * bits != (end - begin) * 8:
            return None
        tensors.append(TensorEntry(name=name, dtype=entry.dtype, shape=entry.shape, begin=begin, end=end))
    return tensors


def _pairs(path: Path, text: bytes) -> Iterator[tuple[str, Any]]:
    if not text.startswith(b"{"):
        raise _corrupt(path, "has a header that does not begin with '{'")
    try:
        yield from entries(text)
    except ValueError as error:
        raise _corrupt(path, f"has a header that is no plain JSON object: {error}") from error


def _words(path: Path, metadata: object) -> dict[str, str]:
    try:
        return msgspec.convert(metadata, dict[str, str])
    except msgspec.ValidationError as error:
        raise _corrupt(path, f"has malformed metadata: {error}") from error


def _entry(path: Path, name: str, value: object) -> _Entry:
    if len(name) > _MAX_NAME:
        raise _corrupt(path, f"has a tensor name of {len(name)} characters")
    try:
        return msgspec.convert(value, _Entry)
    except msgspec.ValidationError as error:
        raise _corrupt(path, f"has a malformed entry for tensor {name!r}: {error}") from error


def _tensor(path: Path, name: str, entry: _Entry) -> TensorEntry:
    begin, end = entry.data_offsets
    if entry.dtype not in DTYPE_BITS:
        raise _corrupt(path, f"gives tensor {name!r} the unknown dtype {excerpt(entry.dtype)!r}")
    if len(entry.shape) > _MAX_RANK or any(edge < 0 for edge in entry.shape):
        raise _corrupt(path, f"gives tensor {name!r} an impossible shape")
    bits = math.prod(entry.shape) * DTYPE_BITS[entry.dtype]
    if begin < 0 or end < begin or (end - begin) * 8 != bits:
        raise _corrupt(
            path, f"gives tensor {name!r} the bytes {begin}..{end}; {entry.dtype} {entry.shape} takes {bits // 8}"
        )
    if any(edge >= _MAX_EDGE for edge in entry.shape):
        raise _corrupt(path, f"gives the empty tensor {name!r} an impossible shape")
    return TensorEntry(name=name, dtype=entry.dtype, shape=tuple(entry.shape), begin=begin, end=end)


def _layout_faults(tensors: list[TensorEntry], data_bytes: int) -> Iterator[str]:
    """Faults in the data part, which tensors must cover without overlap and without holes."""
    at = 0
    for tensor in tensors:
        if tensor.begin < at:
            yield f"has overlapping tensors: {tensor.name!r} begins at {tensor.begin}, inside the one before it"
        if tensor.begin > at:
            yield f"has a hole of {tensor.begin - at} bytes before tensor {tensor.name!r}"
        at = tensor.end
    if at != data_bytes:
        which = "is cut off" if at > data_bytes else "has bytes that belong to no tensor"
        yield f"{which}: its tensors end at byte {at} of the data, which has {data_bytes}"


def _corrupt(path: Path, what: str) -> DataLoss:
    message = f"{path.parent.name}/{path.name} {what}; fetch the file again"
    return DataLoss(message, ErrorReason.MODEL_CORRUPT, file=path.name, defect=what)
