"""Writes tensors of open weight files into a new safetensors file, piece by piece, in another precision if asked.

A file is written as it is read: no more than one piece of it is in memory, except for tensors whose elements are rearranged.
"""

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from domains.model.on_device.flat import arranged
from domains.model.on_device.stored_dtypes import DTYPES
from domains.model.safetensors_header import DTYPE_BITS, TensorEntry
from domains.model.weight_file import WeightFile
from domains.storage import storage_errors

_PIECE_BYTES = 32 * 1024 * 1024
_ALIGNMENT = 8
"""The header's length is a multiple of this, as the format's own library has it."""
LIBRARY_FILE = "diffusion_pytorch_model"
"""Name that diffusers gives to a component's weights; transformers: `model`."""
STORED_AS: Mapping[str, str] = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
"""Precisions that can be written, with their names in a file."""
CONVERTED = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
"""Stored floats that are converted to another precision."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor of a source."""

    file: WeightFile
    entry: TensorEntry
    pieces: Sequence[Tensor] = ()
    """See `Slot.pieces`."""


@dataclass(frozen=True, eq=False)
class NewTensor:
    """A tensor of the new file, and where its bytes come from."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """How it is stored in the new file: `F16`."""
    source: Stored | Tensor
    """A tensor: its value, which no file has because it follows from the config."""

    @property
    def size_bytes(self) -> int:
        """Bytes in the new file."""
        count = 1
        for edge in self.shape:
            count *= edge
        return count * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True)
class NewFile:
    """A weight file to be written."""

    path: str
    """Relative to the new folder; empty: the result is this one file."""
    tensors: Sequence[NewTensor]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


def stored_as(entry: TensorEntry, precision: str) -> str:
    """How a tensor is stored in the new file. `precision` empty: as it is."""
    return STORED_AS[precision] if precision and entry.dtype in CONVERTED else entry.dtype


@dataclass
class Tally:
    """What has been written so far."""

    tell: Callable[[int], None] = lambda written: None
    """Takes the bytes written so far, after each piece."""
    converted: int = 0
    copied: int = 0
    clamped: int = 0
    written: int = 0
    max_error: float = 0.0
    """Largest change of a finite weight."""

    def note(self, size: int) -> None:
        """Add to the bytes written, and report them."""
        self.written += size
        self.tell(self.written)


def write_file(path: Path, tensors: Sequence[NewTensor], metadata: Mapping[str, str], tally: Tally) -> None:
    """Write a new file. Raises STORAGE_FULL, STORAGE_FAILED, MODEL_CORRUPT (a broken source)."""
    ordered = sorted(tensors, key=lambda one: (-DTYPE_BITS[one.dtype], one.name))
    with storage_errors(path.parent), path.open("xb") as file:
        head = _header(ordered, metadata)
        file.write(head)
        tally.note(len(head))
        for one in ordered:
            _write(file, one, tally)
        file.flush()
        os.fsync(file.fileno())


def header_bytes(tensors: Sequence[NewTensor], metadata: Mapping[str, str]) -> int:
    """Bytes of the header that `write_file` writes."""
    return len(_header(tensors, metadata))


def _header(tensors: Sequence[NewTensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for one in tensors:
        end = at + one.size_bytes
        entries[one.name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _write(file: BinaryIO, one: NewTensor, tally: Tally) -> None:
    if isinstance(one.source, Stored) and one.dtype != one.source.entry.dtype:
        tally.converted += 1
    else:
        tally.copied += 1
    for made in _pieces(one, tally):
        file.write(made)
        tally.note(len(made))


def _pieces(one: NewTensor, tally: Tally) -> Iterator[bytearray | memoryview]:
    """The bytes of a tensor in the new file."""
    source = one.source
    if isinstance(source, Tensor):
        yield _bytes_of(source.to(DTYPES[one.dtype]))
        return
    first, last = source.entry.begin, source.entry.end
    step = max(1, last - first) if source.pieces else _PIECE_BYTES
    for begin in range(first, last, step):
        stored = bytearray(min(begin + step, last) - begin)
        source.file.read_at(source.file.place_of(source.entry) + begin - first, memoryview(stored))
        yield _made(one.dtype, source, stored, tally)


def _made(dtype: str, source: Stored, stored: bytearray, tally: Tally) -> bytearray | memoryview:
    """Stored bytes of a source as the new file has them."""
    if dtype == source.entry.dtype and not source.pieces:
        return stored
    values = arranged(source.pieces, torch.frombuffer(stored, dtype=DTYPES[source.entry.dtype]))
    return _bytes_of(values if dtype == source.entry.dtype else _converted(values, DTYPES[dtype], tally))


def _bytes_of(values: Tensor) -> memoryview:
    return values.contiguous().view(torch.uint8).reshape(-1).numpy().data


def _converted(values: Tensor, dtype: torch.dtype, tally: Tally) -> Tensor:
    """The values in another precision; finite ones beyond its range become its largest."""
    wide = values if values.dtype is torch.float64 else values.to(torch.float32)
    most, finite = torch.finfo(dtype).max, wide.isfinite()
    tally.clamped += int((finite & (wide.abs() > most)).sum())
    made = torch.where(finite, wide.clamp(-most, most), wide).to(dtype)
    change = (made.to(wide.dtype) - wide).abs()[finite]
    tally.max_error = max(tally.max_error, float(change.max()) if change.numel() else 0.0)
    return made
