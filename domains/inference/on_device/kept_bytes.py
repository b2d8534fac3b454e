"""Reads the files that the front keeps for a worker."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from domains.errors import DataLoss
from domains.inference.kept_file import KeptFile
from domains.system_errors import check_left


def kept_bytes(file: KeptFile, corrupt: Callable[[str], DataLoss]) -> bytes:
    """The content of a file. Raises what `corrupt` makes of the reason why a file that is gone or changed is of no use;
    QUOTA_EXCEEDED or HOST_OUT_OF_MEMORY if no file descriptor or memory is left."""
    try:
        data = Path(file.path).read_bytes()
    except OSError as error:
        check_left(error)
        raise corrupt(f"cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise corrupt("changed after it was written")
    return data
