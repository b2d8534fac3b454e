"""Files by descriptor, for POSIX and Windows: how they are opened, and read and written at a place without moving there."""

import os
import sys
import threading

if sys.platform == "win32":
    OPEN_FLAGS = os.O_BINARY | os.O_NOINHERIT
    """For every file: its bytes as they are, and for this process alone."""
    FOREIGN_FLAGS = 0
    """For a file that others may exchange. To make a symbolic link takes a privilege there, and no path is a pipe."""

    # Windows has one place in a file for all who share its descriptor.
    _moving = threading.Lock()

    def read_at(descriptor: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer at the end of the file. Raises OSError."""
        with _moving:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, size)

    def write_at(descriptor: int, data: memoryview, offset: int) -> int:
        """How many bytes were written; maybe not all. Raises OSError."""
        with _moving:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, data)

    def take_room(descriptor: int, size_bytes: int) -> None:
        """Make an empty file that long; NTFS takes the room with the length. Raises OSError."""
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
        """How many bytes were written; maybe not all. Raises OSError."""
        return os.pwrite(descriptor, data, offset)

    def take_room(descriptor: int, size_bytes: int) -> None:
        """Make an empty file that long, with room for all bytes where the system can promise it. Raises OSError."""
        if size_bytes and sys.platform == "linux":
            os.posix_fallocate(descriptor, 0, size_bytes)
        else:
            os.ftruncate(descriptor, size_bytes)
