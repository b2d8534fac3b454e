"""Opens the files of a model so that what was judged is what is read."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from domains.descriptors import FOREIGN_FLAGS, OPEN_FLAGS


def open_regular(path: Path) -> BinaryIO:
    """Open a real path, as `Roots.inside` gives it, for reading.

    Raises OSError for a symlink (the file was swapped after it was judged) and for a pipe or a device, whose read might
    never end.
    """
    descriptor = os.open(path, os.O_RDONLY | OPEN_FLAGS | FOREIGN_FLAGS)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(0, "it is no regular file", str(path))
