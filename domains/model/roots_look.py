"""Compares the model roots over time by their folders and the sizes and times of files, without reading a file."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from domains.model.places import Form
from domains.model.roots import Roots
from domains.model.single_file import beside_path
from domains.model.walk import places
from domains.stop import never


class FolderLook(msgspec.Struct, frozen=True, kw_only=True):
    """A model's folder, or its only file, at one time; two looks are equal if nothing in it has changed."""

    signature: int
    """Hash over names, sizes, times and inodes of all files in the folder. Comparable within one process."""
    changed_s: float
    """Unix time of the latest change."""


class RootsLook(msgspec.Struct, frozen=True, kw_only=True):
    """All roots at one time."""

    folders: Mapping[str, FolderLook]
    """Looks by real path."""
    problems: frozenset[tuple[str, str]] = frozenset()
    """Path and message of each folder that could not be read."""

    def unsettled(self, before: "RootsLook | None", now_s: float, settle_s: float) -> set[str]:
        """Folders that a program may still be writing: their files have changed since the look `before`.

        `before` None: folders that changed in the last `settle_s` seconds.
        """
        if before is None:
            return {name for name, one in self.folders.items() if one.changed_s > now_s - settle_s}
        return {name for name, one in self.folders.items() if before.folders.get(name) != one}


def look_at(roots: Roots, stopped: Callable[[], bool] = never) -> RootsLook:
    """Look at all roots; reads no file. `stopped`: ends the look early, with the folders seen so far."""
    problems: set[tuple[str, str]] = set()
    folders: dict[str, FolderLook] = {}

    def complain(path: Path, reason: object, message: str) -> None:
        problems.add((str(path), message))

    for place in places(roots, roots.folders, complain):
        if stopped():
            break
        if place.form is not Form.PICKLE:
            folders[str(place.path)] = look_of(place.path, roots)
    return RootsLook(folders=folders, problems=frozenset(problems))


def look_of(path: Path, roots: Roots) -> FolderLook:
    """Look at one model's folder, or at its only file."""
    seen = sorted(_files(str(path), roots))
    times_ns = (max(mtime, ctime) for _, _, mtime, ctime, _ in seen)
    return FolderLook(signature=hash(tuple(seen)), changed_s=max(times_ns, default=0) / 1e9)


_Seen = tuple[str, int, int, int, int]
"""Path, size, time of the last write, time of the last change of the inode (a copy cannot set that one), inode."""


def _files(folder: str, roots: Roots, depth: int = 1) -> Iterator[_Seen]:
    """The folder and its files, and the files of its components' folders; links inside the roots are followed."""
    try:
        status = os.stat(folder)
        yield _seen(folder, status)
        if not stat.S_ISDIR(status.st_mode):
            # The folder beside a single file, with the configs that it lacks.
            if os.path.isdir(more := beside_path(folder)):
                yield from _files(more, roots, depth)
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                yield from _entry(entry, roots, depth)
    except OSError:
        # The folder is gone or unreadable: the scan reports which.
        return


def _entry(entry: os.DirEntry[str], roots: Roots, depth: int) -> Iterator[_Seen]:
    try:
        status = entry.stat()
    except OSError:
        # The target of the link is missing (for now).
        status = entry.stat(follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        yield _seen(entry.path, status)
    elif depth and (not entry.is_symlink() or roots.holds(Path(entry.path).resolve())):
        yield from _files(entry.path, roots, depth - 1)


def _seen(path: str, status: os.stat_result) -> _Seen:
    return path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
