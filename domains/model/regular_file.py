"""Opens the files of a model in such a way that the checked file is the one that is read."""

import errno
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from domains.descriptors import FOREIGN_FLAGS, OPEN_FLAGS
from domains.system_errors import check_left


def open_regular(path: Path) -> BinaryIO:
    """Open a real path, as `Roots.inside` gives it, for reading.

    Raises OSError for a symlink anywhere in the path (a file or folder was swapped after it was judged) and for a pipe or
    a device, whose read might never end. Raises QUOTA_EXCEEDED or HOST_OUT_OF_MEMORY if no file descriptor or
    memory is left.
    """
    try:
        descriptor = _open(path)
    except OSError as error:
        check_left(error)
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a file at a real path. Raises as `open_regular`, and OSError for a file of more bytes."""
    with open_regular(path) as file:
        # A device has no size, and a file can grow.
        found = file.read(most_bytes + 1)
    if len(found) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes} bytes", str(path))
    return found


def state_of(file: BinaryIO) -> str:
    """A text that changes when the open file changes: size, times and inode. Raises OSError."""
    return state_text(os.fstat(file.fileno()))


def state_text(status: os.stat_result) -> str:
    """Size, time of change of the content, time of change of the inode, inode."""
    return f"{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"


if sys.platform == "win32":

    def _open(path: Path) -> int:
        # On Windows, making a symbolic link requires a privilege.
        return os.open(path, os.O_RDONLY | OPEN_FLAGS | FOREIGN_FLAGS)
else:
    # O_PATH needs the right to search a folder, not to list it.
    _FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | OPEN_FLAGS

    def _open(path: Path) -> int:
        """Folder by folder from the root: O_NOFOLLOW alone judges the last name only."""
        *folders, name = path.absolute().parts
        place = os.open(folders[0], _FOLDER_FLAGS) if folders else -1
        try:
            for folder in folders[1:]:
                inner = os.open(folder, _FOLDER_FLAGS, dir_fd=place)
                os.close(place)
                place = inner
            return os.open(name, os.O_RDONLY | OPEN_FLAGS | FOREIGN_FLAGS, dir_fd=place)
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            os.close(place)
