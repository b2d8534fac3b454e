"""Files by descriptor, for POSIX and Windows: opens them, and reads and writes at an offset without a seek."""

import errno
import os
import sys
import threading
from pathlib import Path

from domains.errors import ErrorReason, ResourceExhausted

if sys.platform == "win32":
    OPEN_FLAGS = os.O_BINARY | os.O_NOINHERIT
    """For every file: binary mode, not inherited by child processes."""
    FOREIGN_FLAGS = 0
    """For a file that others can replace. On Windows, a symbolic link requires a privilege, and no path is a pipe."""

    # On Windows all users of a descriptor share one file position.
    _moving = threading.Lock()

    def read_at(descriptor: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer at the end of the file. Raises OSError."""
        with _moving:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, size)

    def write_at(descriptor: int, data: memoryview, offset: int) -> int:
        """Number of bytes written; can be fewer than given. Raises OSError."""
        with _moving:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, data)

    def take_room(descriptor: int, size_bytes: int) -> None:
        """Extend an empty file to this size; NTFS allocates the space with the size. Raises OSError."""
        os.ftruncate(descriptor, size_bytes)
else:
    OPEN_FLAGS = os.O_CLOEXEC
    """For every file: for this process alone."""
    FOREIGN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK
    """For a file that others may exchange: a symbolic link is refused, and a pipe without a writer does not wait for one."""

    def read_at(descriptor: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer at the end of the file. Raises OSError."""
        return os.pread(descriptor, size, offset)

    def write_at(descriptor: int, data: memoryview, offset: int) -> int:
        """Number of bytes written; can be fewer than given. Raises OSError."""
        return os.pwrite(descriptor, data, offset)

    def take_room(descriptor: int, size_bytes: int) -> None:
        """Extend an empty file to this size, and allocate the space where the system can. Raises OSError."""
        if size_bytes and sys.platform == "linux":
            os.posix_fallocate(descriptor, 0, size_bytes)
        else:
            os.ftruncate(descriptor, size_bytes)


def sync(path: Path, flags: int = os.O_RDWR) -> None:
    """Let the bytes of a file, or the names of a folder (`os.O_RDONLY`, POSIX alone), reach the disk. Raises OSError."""
    descriptor = os.open(path, flags | OPEN_FLAGS)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def none_left(error: BaseException) -> ResourceExhausted | None:
    """The error of a system that has no file descriptor left. None: `error` says something else."""
    if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
        return None
    message = (
        f"no file descriptor is left ({os.strerror(error.errno)}); retry, or raise the limit of open files (ulimit -n)"
    )
    return ResourceExhausted(message, ErrorReason.QUOTA_EXCEEDED)
