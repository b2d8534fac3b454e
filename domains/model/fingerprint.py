"""The hash that names a model's content.

sha256 over, for each weight file in order of its path: the path relative to the model's folder, a NUL, the file's own sha256
in hex, a newline. So it does not depend on where the folder lies, and one changed byte changes it.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

_CHUNK = 4 * 1024 * 1024


class HashCancelled(Exception):
    """Somebody asked to stop."""


class Fingerprints:
    """File hashes, remembered by path, size, time and inode, so that a rescan reads only what changed."""

    def __init__(self, known: dict[str, str] | None = None) -> None:
        self.known = known or {}
        """Key of a file's state to its sha256; persist it to remember over restarts."""

    def of_model(self, folder: Path, files: Sequence[str], cancelled: Callable[[], bool] = lambda: False) -> str:
        """The model's hash. Raises HashCancelled."""
        whole = hashlib.sha256()
        for name in sorted(files):
            whole.update(f"{name}\0{self.of_file(folder / name, cancelled)}\n".encode())
        return whole.hexdigest()

    def of_file(self, path: Path, cancelled: Callable[[], bool]) -> str:
        """The file's sha256, from memory if it has not changed."""
        state = path.stat()
        key = f"{path}|{state.st_size}|{state.st_mtime_ns}|{state.st_ino}"
        if key not in self.known:
            self.known[key] = _hash(path, cancelled)
        return self.known[key]


def _hash(path: Path, cancelled: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if cancelled():
                raise HashCancelled
            digest.update(chunk)
    return digest.hexdigest()
