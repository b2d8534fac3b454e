"""Opens a model's files for a load: exactly those that its scan checked."""

import errno
import hashlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from domains.errors import DataLoss, DeviceOpsError, ErrorReason, FailedPrecondition, NotFound
from domains.model.model import FileStamp, Model
from domains.model.regular_file import open_regular, state_of, state_text
from domains.model.safetensors_header import TensorEntry, header_of

_CHUNK = 4 * 1024 * 1024
"""Bytes that are hashed without a break: about 3 ms."""
_LEADS_ELSEWHERE = (errno.ELOOP, errno.ENOTDIR)
"""Errors of O_NOFOLLOW for a link in the place of a file or a folder."""


def open_judged(model: Model, path: str) -> BinaryIO:
    """Open a model's file, `path` relative to its folder, at the place where the scan found it.

    Raises COMPONENT_MISSING; ILLEGAL_STATE where a link has taken its place; MODEL_CORRUPT if it cannot be read. For a blob
    BLOB_NOT_FOUND, BLOB_CORRUPT.
    """
    component, _, name = path.rpartition("/")
    facts = {"component": component, "file": name}
    stamp = model.stamp(path)
    try:
        return open_regular(Path(stamp.real))
    except OSError as error:
        if stamp.blob_id:
            raise _blob_gone(stamp, error) from error
        raise _file_gone(path, error, facts) from error


def _blob_gone(stamp: FileStamp, error: OSError) -> DeviceOpsError:
    facts = {"blob_id": stamp.blob_id, "file": stamp.path}
    if isinstance(error, FileNotFoundError) or error.errno in _LEADS_ELSEWHERE:
        message = f"blob {stamp.blob_id}, which is {stamp.path}, is gone; register it again, then the model"
        return NotFound(message, ErrorReason.BLOB_NOT_FOUND, **facts)
    message = f"blob {stamp.blob_id}, which is {stamp.path}, cannot be read: {error.strerror}; register it again"
    return DataLoss(message, ErrorReason.BLOB_CORRUPT, **facts)


def _file_gone(path: str, error: OSError, facts: Mapping[str, str]) -> DeviceOpsError:
    if isinstance(error, FileNotFoundError):
        message = f"the model has no {path}; restore the file and scan again"
        return FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, **facts)
    if error.errno in _LEADS_ELSEWHERE:
        message = f"{path} is not where its scan found it; scan again"
        return FailedPrecondition(message, ErrorReason.ILLEGAL_STATE, **facts)
    message = f"{path} cannot be read: {error.strerror}; restore the file"
    return DataLoss(message, ErrorReason.MODEL_CORRUPT, **facts)


class WeightFile:
    """An open weight file with the content that its scan hashed. Close it after use."""

    def __init__(self, model: Model, path: str) -> None:
        """Raises as `open_judged`; MODEL_CORRUPT for a damaged header."""
        self.component, _, self.name = path.rpartition("/")
        self._path = path
        self._stamp = model.stamp(path)
        self._real = self._stamp.real
        self._file = open_judged(model, path)
        self._lock = threading.Lock()
        """Held where reading moves the file's position."""
        try:
            self._state = state_of(self._file)
            self._settled = _of_content(self._file)
            if self._stamp.blob_id and self.size_bytes != self._stamp.size_bytes:
                raise self._blob(f"has {self.size_bytes} bytes now, not {self._stamp.size_bytes}")
            header = header_of(self._file, Path(path))
        except BaseException:
            self._file.close()
            raise
        self.metadata = header.metadata
        self.tensors = {tensor.name: tensor for tensor in header.tensors}
        self._data_offset = header.data_offset

    def __enter__(self) -> "WeightFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def state(self) -> str:
        """Size, times and inode when it was opened: other content has another state."""
        return self._state

    @property
    def unchanged(self) -> bool:
        """Whether it is still in that state, and in its place."""
        try:
            return state_of(self._file) == state_text(os.stat(self._real)) == self._state
        except OSError:
            return False

    @property
    def size_bytes(self) -> int:
        """Size of the whole file when it was opened."""
        return self._settled[0]

    def checked(self) -> Iterator[None]:
        """Check that the content is the one that the scan saw; yields between pieces of the file.

        Links and copies change a file's times and inode, so then the content decides. Raises ILLEGAL_STATE, MODEL_CORRUPT;
        of a blob BLOB_CORRUPT.
        """
        if self._stamp.state == self._state:
            return
        if not self._stamp.sha256:
            if self._stamp.state:
                raise self._changed()
            return
        digest, left = hashlib.sha256(), self.size_bytes
        self._file.seek(0)
        while chunk := self._read(min(left, _CHUNK)):
            digest.update(chunk)
            left -= len(chunk)
            yield
        if left:
            raise self._broken("was cut off while its content was checked")
        if digest.hexdigest() != self._stamp.sha256:
            raise self._changed()

    @property
    def descriptor(self) -> int:
        """The open file."""
        return self._file.fileno()

    def place_of(self, tensor: TensorEntry) -> int:
        """Where a tensor begins in the file."""
        return self._data_offset + tensor.begin

    def read_at(self, at: int, memory: memoryview) -> None:
        """Fill memory with the file's bytes from `at` on. Raises MODEL_CORRUPT. Any thread."""
        begin, whole = at, memory
        try:
            # The system reads at most 2 GiB at once.
            while memory and (size := self._read_at(memory, at)):
                memory, at = memory[size:], at + size
        except OSError as error:
            raise self._broken(f"cannot be read: {error.strerror}") from error
        if memory:
            raise self._broken(f"was cut off while its bytes {begin}..{begin + len(whole)} were read")

    def check_unchanged(self) -> None:
        """Raise ILLEGAL_STATE if the content was written since the file was opened."""
        if _of_content(self._file) != self._settled:
            raise self._changed()

    def _read_at(self, memory: memoryview, at: int) -> int:
        if sys.platform != "win32":
            return os.preadv(self._file.fileno(), [memory], at)
        with self._lock:
            self._file.seek(at)
            return self._file.readinto(memory)  # pyright: ignore[reportAttributeAccessIssue]

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise self._broken(f"cannot be read: {error.strerror}") from error

    def _changed(self) -> DeviceOpsError:
        if self._stamp.blob_id:
            return self._blob("has other bytes than when it was registered")
        message = f"{self._path} has other content than its scan saw; scan again, then load the model"
        return FailedPrecondition(message, component=self.component, file=self.name)

    def _blob(self, what: str) -> DataLoss:
        blob_id = self._stamp.blob_id
        message = f"blob {blob_id}, which is {self._path}, {what}; register it in a new generation, then the model"
        return DataLoss(message, ErrorReason.BLOB_CORRUPT, blob_id=blob_id, file=self._path)

    def _broken(self, what: str) -> DataLoss:
        if self._stamp.blob_id:
            return self._blob(what)
        message = f"{self._path} {what}; replace it"
        return DataLoss(message, ErrorReason.MODEL_CORRUPT, component=self.component, file=self.name)


def _of_content(file: BinaryIO) -> tuple[int, int]:
    """Size and time of the last write in ns: a write changes them, a new link to the file does not."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
