"""Blobs in files that another process owns: their pages are used where they are, never copied.

How a foreign file is kept from hurting us:

* It is opened anew for each use, by the path that was judged at registration, without following a symbolic link, and
  must then lead inside the roots still. Nothing stays open between uses.
* Its `FileStamp` is taken at registration. Another device or inode under the path, no file, or one that is too short:
  the blob is LOST. Another size or time: the owner may have written, so a known hash is reckoned again before use.
* A write through a mapping does not always move a file's time (on /dev/shm it never does). So a read of the whole blob
  hashes what it sends as well, and ends with BLOB_CORRUPT instead of the last piece where a known hash differs.
  A read of a part has the stamp alone to go by.
* Touching a mapped page behind the end of a file that shrank kills the process (SIGBUS), and no check beforehand can
  prevent it. Therefore this process never touches a mapping: bytes that leave it are read with `pread`, from the same
  page cache, which answers a short count instead. The pages in place (`pages`) are for a process that may die of
  it, as a worker does, which its keeper starts again; `pages` keeps the window small by checking the size after the
  mapping is made.
"""

import asyncio
import errno
import hashlib
import mmap
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from domains.descriptors import FOREIGN_FLAGS, OPEN_FLAGS, read_at
from domains.errors import DataLoss, ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.memory.blobs.blob import Blob
from domains.memory.blobs.roots import BlobRoots
from domains.memory.blobs.tiers import PIECE_BYTES

Result = TypeVar("Result")


class FileStamp(NamedTuple):
    """Which file it is, and when it last changed."""

    device: int
    inode: int
    size_bytes: int
    modify_time_ns: int
    change_time_ns: int


class ContentLost(FailedPrecondition):
    """What a mapped blob stands on has vanished, was replaced, or has shrunk."""


def lost(blob: Blob, why: str) -> ContentLost:
    """The error for a mapped blob that is LOST."""
    message = f"blob {blob.id} is lost: {why}; register it again"
    return ContentLost(message, ErrorReason.ILLEGAL_STATE, blob_id=blob.id, state="lost")


def open_file(path: Path, roots: BlobRoots) -> int:
    """A descriptor of a regular file inside the roots. FileNotFoundError where there is none any more."""
    try:
        descriptor = os.open(path, os.O_RDONLY | OPEN_FLAGS | FOREIGN_FLAGS)
    except OSError as error:
        # ELOOP: somebody put a symbolic link where the file was.
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise FileNotFoundError(error.errno, "is no file any more", str(path)) from error
        raise
    try:
        _check_regular(descriptor)
        _check_inside(descriptor, path, roots)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(descriptor: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise InvalidRequest([Violation(field="file.path", message="names no regular file")])


def _check_inside(descriptor: int, path: Path, roots: BlobRoots) -> None:
    """A folder on the way may have become a symbolic link after the path was resolved. Linux tells where it led; elsewhere
    only where it leads by now."""
    link = Path(f"/proc/self/fd/{descriptor}")
    led = Path(os.readlink(link)) if link.is_symlink() else path.resolve()
    if not roots.holds(led):
        roots.inside(str(path), "file.path")
        raise FileNotFoundError(errno.ENOENT, "leads elsewhere now", str(path))


def stamp_of(descriptor: int) -> FileStamp:
    """Of an open file."""
    told = os.fstat(descriptor)
    return FileStamp(told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns)


def hash_of(descriptor: int, begin: int, size: int) -> str | None:
    """SHA-256 of a stretch of a file; None: it is shorter."""
    digest = hashlib.sha256()
    for offset in range(begin, begin + size, PIECE_BYTES):
        wanted = min(PIECE_BYTES, begin + size - offset)
        piece = read_at(descriptor, wanted, offset)
        if len(piece) != wanted:
            return None
        digest.update(piece)
    return digest.hexdigest()


class MappedContent:
    """A stretch of a foreign file, open for reading. A read of all of it in order is compared with the known hash."""

    def __init__(self, descriptor: int, blob: Blob, offset_bytes: int) -> None:
        self._descriptor = descriptor
        self._blob = blob
        self._begin = offset_bytes
        self._digest = hashlib.sha256()
        self._hashed_bytes = 0

    async def read(self, offset: int, size: int, then: Callable[[bytes], Result]) -> Result:
        """A piece, handed to `then` on the thread that read it."""
        return await asyncio.to_thread(self._read, offset, size, then)

    def _read(self, offset: int, size: int, then: Callable[[bytes], Result]) -> Result:
        data = read_at(self._descriptor, size, self._begin + offset)
        if len(data) != size:
            raise lost(self._blob, f"its file ends at {self._begin + offset + len(data)} bytes now")
        if self._blob.sha256 and offset == self._hashed_bytes:
            self._digest.update(data)
            self._hashed_bytes += size
            if self._hashed_bytes == self._blob.size_bytes and self._digest.hexdigest() != self._blob.sha256:
                raise changed(self._blob)
        return then(data)

    def close(self) -> None:
        """Once."""
        os.close(self._descriptor)


def changed(blob: Blob) -> DataLoss:
    """The error for bytes that are not those of the known hash."""
    message = f"the bytes of blob {blob.id} have changed since they were hashed; register them as a new generation"
    return DataLoss(message, ErrorReason.BLOB_CORRUPT, blob_id=blob.id, sha256=blob.sha256)


@contextmanager
def pages(path: Path, offset: int, size: int, roots: BlobRoots) -> Generator[memoryview]:
    """The stretch as read-only memory, the very pages of the file: never in the server, see above. `size` from 1.

    Raises FileNotFoundError, or EOFError where the file is too short. Release every view before leaving.
    """
    descriptor = open_file(path, roots)
    try:
        begin = offset - offset % mmap.ALLOCATIONGRANULARITY
        if stamp_of(descriptor).size_bytes < offset + size:
            raise EOFError(f"{path} is shorter than {offset + size} bytes")
        mapping = mmap.mmap(descriptor, offset + size - begin, access=mmap.ACCESS_READ, offset=begin)
        if stamp_of(descriptor).size_bytes < offset + size:
            mapping.close()
            raise EOFError(f"{path} shrank while it was mapped")
    finally:
        os.close(descriptor)
    with mapping, memoryview(mapping) as whole, whole[offset - begin :] as view:
        yield view
