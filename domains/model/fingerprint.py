"""The hash that names a model's content.

sha256 over, for each weight file in order of its path: the path relative to the model's folder, a NUL, the file's own sha256
in hex, a newline. So it does not depend on where the folder lies, and one changed byte changes it.
"""

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import msgspec

from domains.model.regular_file import open_regular

_CHUNK = 4 * 1024 * 1024
_CLOCK_GRAIN_S = 2.0
"""The coarsest clock of a file system in use (FAT). A file younger than this may change again without its time changing."""


class HashCancelled(Exception):
    """Somebody asked to stop."""


class FileHash(msgspec.Struct, frozen=True, kw_only=True):
    """A file's hash, and what the file looked like when it was read."""

    path: str
    state: str
    """Size, times and inode, as text."""
    sha256: str


class Fingerprints:
    """File hashes, remembered by path, size, times and inode, so that a rescan reads only what changed."""

    def __init__(self, known: Iterable[FileHash] = ()) -> None:
        self._known = {one.path: one for one in known}
        self.read_bytes = 0
        """Bytes read so far to compute hashes."""

    @property
    def known(self) -> tuple[FileHash, ...]:
        """Persist them to remember over restarts."""
        return tuple(self._known.values())

    def of_model(self, folder: Path, files: Sequence[str], cancelled: Callable[[], bool] = lambda: False) -> str:
        """The model's hash; `files` relative to its folder. Raises HashCancelled, OSError."""
        whole = hashlib.sha256()
        for name in sorted(files):
            whole.update(f"{name}\0{self.of_file(folder / name, cancelled)}\n".encode())
        return whole.hexdigest()

    def of_file(self, path: Path, cancelled: Callable[[], bool] = lambda: False) -> str:
        """The file's sha256, from memory if it has not changed. Raises HashCancelled, OSError."""
        status = path.stat()
        state = _state(status)
        known = self._known.get(str(path))
        if known and known.state == state:
            return known.sha256
        began = time.time()
        sha256 = self._hash(path, cancelled)
        self._known.pop(str(path), None)
        if began - status.st_mtime > _CLOCK_GRAIN_S:
            self._known[str(path)] = FileHash(path=str(path), state=state, sha256=sha256)
        return sha256

    def forget_all_but(self, folders: Collection[str]) -> None:
        """Keep only the hashes of files under these folders (absolute), so that the memory does not grow for ever."""
        wanted = {Path(folder) for folder in folders}
        self._known = {path: one for path, one in self._known.items() if wanted & set(Path(path).parents)}

    def _hash(self, path: Path, cancelled: Callable[[], bool]) -> str:
        digest = hashlib.sha256()
        with open_regular(path.resolve()) as file:
            while chunk := file.read(_CHUNK):
                if cancelled():
                    raise HashCancelled
                digest.update(chunk)
                self.read_bytes += len(chunk)
        return digest.hexdigest()


def _state(status: os.stat_result) -> str:
    return f"{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"
