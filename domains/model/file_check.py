"""Checks one weight file of a model: its header, its hashes against the noted ones, and its values."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from domains.errors import DataLoss, DeviceOpsError, ErrorReason, ResourceExhausted, excerpt
from domains.model.finding import ModelFinding
from domains.model.fingerprint import FileHash, HashCancelled, file_hash
from domains.model.model import FileStamp, Model
from domains.model.non_finite import item_bytes, non_finite
from domains.model.regular_file import state_of
from domains.model.safetensors_header import Header, TensorEntry, header_of
from domains.model.validation import Depth
from domains.model.weight_file import open_judged
from domains.reasons import Severity

_PIECE = 4 * 1024 * 1024


class FileChecked(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of a file found."""

    findings: tuple[ModelFinding, ...] = ()
    hashes: FileHash | None = None
    """None: the file was not hashed to its end."""
    size_bytes: int = 0
    tensor_count: int = 0
    non_finite_count: int | None = None
    damaged: bool = False
    """Whether the hash or the values are wrong although the file was not written since its hash was noted."""


def check_file(
    model: Model, stamp: FileStamp, depth: Depth, cancelled: Callable[[], bool], read: Callable[[int], None]
) -> FileChecked:
    """Check a weight file as deeply as asked. `read` takes the size of each piece. Raises HashCancelled."""
    try:
        with open_judged(model, stamp.path) as file:
            return _Check(file, stamp, cancelled, read).run(depth)
    except ResourceExhausted:
        raise
    except DeviceOpsError as error:
        # The file is gone, replaced or unreadable: nothing more can be checked.
        return FileChecked(findings=(_finding(stamp, error.reason, error.message),))
    except OSError as error:
        message = f"{stamp.path} cannot be read: {error.strerror}; restore the file"
        return FileChecked(findings=(_finding(stamp, ErrorReason.MODEL_CORRUPT, message),))


class _Check:
    def __init__(
        self, file: BinaryIO, stamp: FileStamp, cancelled: Callable[[], bool], read: Callable[[int], None]
    ) -> None:
        self._file = file
        self._stamp = stamp
        self._cancelled = cancelled
        self._read = read

    def run(self, depth: Depth) -> FileChecked:
        state, size = state_of(self._file), os.fstat(self._file.fileno()).st_size
        hashes = file_hash(self._file, self._stamp.path, state, self._cancelled, self._read) if depth > 1 else None
        if state_of(self._file) != state:
            return self._changed(size)
        findings = [] if hashes is None else self._compared(hashes)
        try:
            header = header_of(self._file, Path(self._stamp.path))
        except DataLoss as error:
            findings.append(_finding(self._stamp, error.reason, error.message))
            return FileChecked(findings=tuple(findings), hashes=hashes, size_bytes=size)
        try:
            bad = self._values(header) if depth >= Depth.VALUES else None
        except OSError:
            if state_of(self._file) == state:
                raise
            bad = None  # cut off while it was read: told below
        if state_of(self._file) != state:
            return self._changed(size)
        findings += [self._not_finite(tensor, count) for tensor, count in bad or () if count]
        return FileChecked(
            findings=tuple(findings),
            hashes=hashes,
            size_bytes=size,
            tensor_count=len(header.tensors),
            non_finite_count=None if bad is None else sum(count for _, count in bad),
            damaged=bool(findings) and state == self._stamp.state,
        )

    def _changed(self, size: int) -> FileChecked:
        message = f"{self._stamp.path} was written while it was read; validate again when it is complete"
        return FileChecked(findings=(_finding(self._stamp, ErrorReason.ILLEGAL_STATE, message),), size_bytes=size)

    def _compared(self, hashes: FileHash) -> list[ModelFinding]:
        noted = self._stamp.sha256
        if not noted or hashes.sha256 == noted:
            return []
        where = "its header or metadata" if hashes.tensor_sha256 == self._stamp.tensor_sha256 else "its content"
        written = (
            "it was not written since: the disk or the memory damaged it; replace it"
            if hashes.state == self._stamp.state
            else "it was written since; replace it, or scan again if that was meant"
        )
        message = f"{self._stamp.path}: {where} differs: SHA-256 is {hashes.sha256}, noted was {noted}; {written}"
        return [_finding(self._stamp, ErrorReason.MODEL_CORRUPT, message)]

    def _values(self, header: Header) -> list[tuple[TensorEntry, int]]:
        return [(tensor, self._count(header, tensor)) for tensor in header.tensors if item_bytes(tensor.dtype)]

    def _count(self, header: Header, tensor: TensorEntry) -> int:
        """How many numbers of a tensor are NaN or infinite."""
        self._file.seek(header.data_offset + tensor.begin)
        left, count = tensor.end - tensor.begin, 0
        while left:
            if self._cancelled():
                raise HashCancelled
            piece = self._file.read(min(left, _PIECE))
            if len(piece) < min(left, _PIECE):
                raise OSError(0, "it was cut off while it was read", self._stamp.path)
            count += non_finite(tensor.dtype, piece)
            left -= len(piece)
            self._read(len(piece))
        return count

    def _not_finite(self, tensor: TensorEntry, count: int) -> ModelFinding:
        message = (
            f"{self._stamp.path}: tensor {excerpt(tensor.name)} has {count} NaN or infinite values of "
            f"{tensor.elements}; pictures of this model would be black; fetch the file again"
        )
        return _finding(self._stamp, ErrorReason.MODEL_CORRUPT, message, field=f"{self._stamp.path}:{tensor.name}")


def _finding(stamp: FileStamp, reason: ErrorReason, message: str, field: str = "") -> ModelFinding:
    return ModelFinding(reason=reason, message=message, field=field or stamp.path, severity=Severity.ERROR)
