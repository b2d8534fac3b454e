"""Reading files that another process owns, without copying them into the store.

Protection against changes by the owner:

* Each use opens the file again by the path of the registration, without following a symbolic link, and checks that it is
  inside the roots. No file stays open between uses.
* The registration notes a `FileStamp`. If the path has another device or inode, no file, or a file that is too short, the
  blob is LOST. If size or times differ, the owner may have written, so a known hash is checked again before the use.
* A write through a mapping does not always update the file's times (on /dev/shm it never does). A read of the whole blob
  therefore hashes what it sends, and raises BLOB_CORRUPT instead of the last piece if a known hash differs. A read of a
  part relies on the stamp alone.
* Touching a mapped page beyond the end of a file that shrank kills the process (SIGBUS), and no earlier check prevents it.
  The server therefore never touches a mapping: it reads with `pread` from the same page cache, which returns a short count
  instead. `pages` maps the file for a process that may be killed, as a worker may, and checks the size after the mapping
  is made to keep the window small.
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
from domains.system_errors import check_left

Result = TypeVar("Result")


class FileStamp(NamedTuple):
    """The identity of a file and the times of its last change."""

    device: int
    inode: int
    size_bytes: int
    modify_time_ns: int
    change_time_ns: int


class ContentLost(FailedPrecondition):
    """The file of a mapped blob has vanished, was replaced, or has shrunk."""


def lost(blob: Blob, why: str) -> ContentLost:
    """The error for a mapped blob that is LOST."""
    message = f"blob {blob.id} is lost: {why}; register it again"
    return ContentLost(message, ErrorReason.ILLEGAL_STATE, blob_id=blob.id, state="lost")


def open_file(path: Path, roots: BlobRoots) -> int:
    """A descriptor of a regular file inside the roots, of an accepted owner. FileNotFoundError if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | OPEN_FLAGS | FOREIGN_FLAGS)
    except OSError as error:
        # ELOOP: a symbolic link has replaced the file.
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise FileNotFoundError(error.errno, "is no file any more", str(path)) from error
        check_left(error)
        raise
    try:
        _check_regular(descriptor)
        _check_inside(descriptor, path, roots)
        roots.check_owner(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(descriptor: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise InvalidRequest([Violation(field="file.path", message="names no regular file")])


def _check_inside(descriptor: int, path: Path, roots: BlobRoots) -> None:
    """Check that the opened file is inside the roots: a folder of the path may have become a symbolic link meanwhile.

    Linux tells the path that was opened; other systems only the path as it resolves now.
    """
    link = Path(f"/proc/self/fd/{descriptor}")
    led = Path(os.readlink(link)) if link.is_symlink() else path.resolve()
    if not roots.holds(led):
        roots.inside(str(path), "file.path")
        raise FileNotFoundError(errno.ENOENT, "leads elsewhere now", str(path))


def stamp_of(descriptor: int) -> FileStamp:
    """The stamp of an open file."""
    told = os.fstat(descriptor)
    return FileStamp(told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns)


def hash_of(descriptor: int, begin: int, size: int) -> str | None:
    """The SHA-256 of a range of a file. None: the file is too short."""
    digest = hashlib.sha256()
    for offset in range(begin, begin + size, PIECE_BYTES):
        wanted = min(PIECE_BYTES, begin + size - offset)
        piece = read_at(descriptor, wanted, offset)
        if len(piece) != wanted:
            return None
        digest.update(piece)
    return digest.hexdigest()


class MappedContent:
    """A range of a file of another process, open for reading. A complete read in order is compared with the known hash."""

    def __init__(self, descriptor: int, blob: Blob, offset_bytes: int) -> None:
        self._descriptor = descriptor
        self._blob = blob
        self._begin = offset_bytes
        self._digest = hashlib.sha256()
        self._hashed_bytes = 0

    async def read(self, offset: int, size: int, then: Callable[[bytes], Result]) -> Result:
        """Read a piece and call `then` with it on the reading thread."""
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
        """Close the file. To be called once."""
        os.close(self._descriptor)


def changed(blob: Blob) -> DataLoss:
    """The error for bytes that do not have the known hash."""
    message = f"the bytes of blob {blob.id} have changed since they were hashed; register them as a new generation"
    return DataLoss(message, ErrorReason.BLOB_CORRUPT, blob_id=blob.id, sha256=blob.sha256)


@contextmanager
def pages(path: Path, offset: int, size: int, roots: BlobRoots) -> Generator[memoryview]:
    """Map a range of a file as read-only memory. Not for the server process, see above. `size` is at least 1.

    Raises FileNotFoundError, or EOFError if the file is too short. The caller releases every view before it leaves.
    """
    descriptor = open_file(path, roots)
    try:
        begin = offset - offset % mmap.ALLOCATIONGRANULARITY
        if stamp_of(descriptor).size_bytes < offset + size:
            raise EOFError(f"{path} is shorter than {offset + size} bytes")
        mapping = mmap.mmap(descriptor, offset + size - begin, access=mmap.ACCESS_READ, offset=begin)
        shrank = stamp_of(descriptor).size_bytes < offset + size
    finally:
        os.close(descriptor)
    with mapping, memoryview(mapping) as whole, whole[offset - begin :] as view:
        if shrank:
            raise EOFError(f"{path} shrank while it was mapped")
        yield view
