"""What the model roots look like from outside: which model folders there are, with the sizes and times of their files."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from domains.model.roots import Roots
from domains.model.walk import model_folders


class FolderLook(msgspec.Struct, frozen=True, kw_only=True):
    """A model folder; two looks are equal while nothing in it changes."""

    signature: int
    """Over names, sizes, times and inodes of all its files. Comparable within one process."""
    changed_s: float
    """Unix time of the youngest change."""


class RootsLook(msgspec.Struct, frozen=True, kw_only=True):
    """All roots at one time."""

    folders: Mapping[str, FolderLook]
    """By real path."""
    problems: frozenset[tuple[str, str]] = frozenset()
    """Path and message of what could not be looked at."""

    def unsettled(self, before: "RootsLook | None", now_s: float, settle_s: float) -> set[str]:
        """Folders that may still be written: their files have changed since the look `before`.

        `before` is None for the first look: then those that changed in the last `settle_s` seconds.
        """
        if before is None:
            return {name for name, one in self.folders.items() if one.changed_s > now_s - settle_s}
        return {name for name, one in self.folders.items() if before.folders.get(name) != one}


def look_at(roots: Roots, stopped: Callable[[], bool] = lambda: False) -> RootsLook:
    """Look at all roots; reads no file. `stopped`: end early, with what was seen by then."""
    problems: set[tuple[str, str]] = set()
    folders: dict[str, FolderLook] = {}

    def complain(path: Path, reason: object, message: str) -> None:
        problems.add((str(path), message))

    for folder in model_folders(roots, roots.folders, complain):
        if stopped():
            break
        folders[str(folder)] = _folder_look(folder, roots)
    return RootsLook(folders=folders, problems=frozenset(problems))


def _folder_look(folder: Path, roots: Roots) -> FolderLook:
    seen = sorted(_files(folder, roots))
    times_ns = (max(mtime, ctime) for _, _, mtime, ctime, _ in seen)
    return FolderLook(signature=hash(tuple(seen)), changed_s=max(times_ns, default=0) / 1e9)


_Seen = tuple[str, int, int, int, int]
"""Path, size, time of the last write, time of the last change of the inode (a copy cannot set that one), inode."""


def _files(folder: Path, roots: Roots, depth: int = 1) -> Iterator[_Seen]:
    """The folder and its files, and those of its components' folders, wherever links inside the roots lead."""
    try:
        yield _seen(str(folder), folder.stat())
        with os.scandir(folder) as entries:
            for entry in entries:
                yield from _entry(entry, roots, depth)
    except OSError:
        # It went away, or cannot be read: the scan says which.
        return


def _entry(entry: os.DirEntry[str], roots: Roots, depth: int) -> Iterator[_Seen]:
    try:
        status = entry.stat()
    except OSError:
        # A link that leads nowhere (yet).
        status = entry.stat(follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        yield _seen(entry.path, status)
    elif depth and (not entry.is_symlink() or roots.holds(Path(entry.path).resolve())):
        yield from _files(Path(entry.path), roots, depth - 1)


def _seen(path: str, status: os.stat_result) -> _Seen:
    return path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
