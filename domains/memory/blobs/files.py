"""The tier DISK: the files of blobs.

A job's file is named by its hash. It is written under a temporary name and renamed, so that a crash leaves no partial
content under a final name. The file of an upload is named by its blob's id and takes its disk space at once. Files without
a row, which a crash may leave, are swept at the next start.
"""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from domains.amounts import compared
from domains.descriptors import OPEN_FLAGS, read_at, sync, take_room, write_at
from domains.errors import DataLoss, ErrorReason, ResourceExhausted
from domains.memory.blobs.blob import Blob, BlobOrigin
from domains.storage import Durability, storage_errors

Result = TypeVar("Result")
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | OPEN_FLAGS


class BlobFiles:
    """The files of one folder. Safe to call from any thread."""

    def __init__(self, folder: Path, *, lasting: Durability = Durability.PROCESS) -> None:
        """`lasting`: with POWER, each write returns when the bytes and the file's name are on the disk."""
        self.folder = folder
        self._synced = lasting is Durability.POWER
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sync_names(folder.parent)

    def path(self, name: str) -> Path:
        """The path of a file by its name: a SHA-256, or the id of an upload."""
        return self.folder / name[:2] / name

    def write(self, data: bytes) -> str:
        """Store a content. Returns its SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        with storage_errors(self.folder):
            if path.is_file() and path.stat().st_size == len(data):
                self._sync_again(path)
                return sha256
            self._make_parent(path)
            temporary = path.with_suffix(f".{os.getpid()}-{time.monotonic_ns()}")
            try:
                descriptor = os.open(temporary, _NEW, 0o600)
                try:
                    _write_all(descriptor, 0, data)
                    self._sync(descriptor)
                finally:
                    os.close(descriptor)
                temporary.replace(path)
                self._sync_names(path.parent)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        return sha256

    def reserve(self, name: str, size_bytes: int) -> None:
        """Make a file and take its disk space now. STORAGE_FULL leaves nothing behind."""
        path = self.path(name)
        with storage_errors(self.folder):
            available = shutil.disk_usage(self.folder).free
            if size_bytes > available:
                raise _no_room(self.folder, size_bytes, available)
            self._make_parent(path)
            descriptor = os.open(path, _NEW, 0o600)
            try:
                take_room(descriptor, size_bytes)
                self._sync(descriptor)
                self._sync_names(path.parent)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)

    def write_at(self, name: str, offset: int, data: bytes) -> None:
        """Write a piece of a reserved file."""
        with storage_errors(self.folder):
            descriptor = os.open(self.path(name), os.O_WRONLY | OPEN_FLAGS)
            try:
                _write_all(descriptor, offset, data)
                self._sync(descriptor)
            finally:
                os.close(descriptor)

    def _sync_again(self, path: Path) -> None:
        """Sync a file that is there already: another thread may have written it, and not synced it yet."""
        if self._synced:
            sync(path)
            self._sync_names(path.parent)

    def _make_parent(self, path: Path) -> None:
        with suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
            self._sync_names(self.folder)

    def _sync(self, descriptor: int) -> None:
        if self._synced:
            os.fsync(descriptor)

    def _sync_names(self, folder: Path) -> None:
        """Sync the names of a folder's files to the disk. Windows has no such call; NTFS journals names by itself."""
        if self._synced and os.name == "posix":
            sync(folder, os.O_RDONLY)

    def size(self, name: str) -> int | None:
        """The size of a file. None: there is no such file."""
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        self.path(name).unlink(missing_ok=True)

    def sweep(self, wanted: Iterable[str]) -> int:
        """Remove every file whose name is not in `wanted`. Returns their number."""
        keep = set(wanted)
        stray = [file for file in self.folder.glob("*/*") if file.name not in keep]
        for file in stray:
            file.unlink(missing_ok=True)
        return len(stray)


def file_name(blob: Blob) -> str:
    """The name of the file of a DISK blob."""
    return blob.sha256 if blob.origin is BlobOrigin.JOB else blob.id


def _write_all(descriptor: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = write_at(descriptor, view, offset)
        offset, view = offset + written, view[written:]


def _no_room(folder: Path, needed: int, available: int) -> ResourceExhausted:
    need, free = compared(needed, available)
    return ResourceExhausted(
        f"{need} are needed and {free} are free under {folder}; free space there, then retry",
        ErrorReason.STORAGE_FULL,
        needed_bytes=needed,
        available_bytes=available,
    )


class DiskContent:
    """The file of one blob, open for reading. BLOB_CORRUPT if its size is not the stored one."""

    def __init__(self, files: BlobFiles, blob: Blob) -> None:
        self._blob = blob
        self._folder = files.folder
        try:
            with storage_errors(files.folder):
                self.descriptor = os.open(files.path(file_name(blob)), os.O_RDONLY | OPEN_FLAGS)
        except FileNotFoundError:
            raise self._corrupt(f"the file of blob {blob.id} is gone", 0) from None
        size = os.fstat(self.descriptor).st_size
        if size != blob.size_bytes:
            self.close()
            raise self._corrupt(f"the file of blob {blob.id} has {size} bytes, {blob.size_bytes} were stored", size)

    def _corrupt(self, message: str, size: int) -> DataLoss:
        return DataLoss(message, ErrorReason.BLOB_CORRUPT, blob_id=self._blob.id, size_bytes=size)

    async def read(self, offset: int, size: int, then: Callable[[bytes], Result]) -> Result:
        """Read a piece and call `then` with it on the reading thread."""
        return await asyncio.to_thread(self._read, offset, size, then)

    def _read(self, offset: int, size: int, then: Callable[[bytes], Result]) -> Result:
        with storage_errors(self._folder):
            data = read_at(self.descriptor, size, offset)
        if len(data) != size:
            raise self._corrupt(
                f"the file of blob {self._blob.id} was cut off at {offset + len(data)} bytes", len(data)
            )
        return then(data)

    def close(self) -> None:
        """Close the file. To be called once."""
        os.close(self.descriptor)


class DiskBytes:
    """The tier DISK."""

    def __init__(self, files: BlobFiles) -> None:
        self._files = files

    async def allocate(self, blob: Blob, alignment: int) -> None:
        """Take the disk space of the whole blob."""
        await asyncio.to_thread(self._files.reserve, blob.id, blob.size_bytes)

    async def write(self, blob: Blob, offset: int, data: bytes) -> None:
        """Write a piece inside the blob."""
        await asyncio.to_thread(self._files.write_at, blob.id, offset, data)

    async def open(self, blob: Blob) -> DiskContent:
        """Open the blob for reading; the caller closes it."""
        return DiskContent(self._files, blob)

    def free(self, blob: Blob) -> None:
        """Remove the file."""
        self._files.remove(file_name(blob))
