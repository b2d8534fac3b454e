"""Gives a file or folder that was written under another name the name that it was meant for, and overwrites nothing."""

import os
import shutil
import sys
from pathlib import Path

from domains.errors import AlreadyExists

PART = ".part"
"""End of the name of a file or folder that is being written. Scans skip it."""


def part_of(target: Path, key: str) -> Path:
    """Where a file or folder is written until it is whole, beside its place. `key`: unique among its writers."""
    return target.with_name(f".{target.name}.{key}{PART}")


def is_part(name: str) -> bool:
    """Whether a file or folder of this name is being written."""
    return name.startswith(".") and name.endswith(PART)


def publish(part: Path, target: Path) -> None:
    """Rename a finished file or folder, unless something has taken the name meanwhile. Raises ID_TAKEN."""
    try:
        if sys.platform == "win32":
            part.rename(target)  # which overwrites nothing there
        elif part.is_dir():
            # A rename replaces an empty folder, and only an empty one.
            target.mkdir()
            part.rename(target)
        else:
            _publish_file(part, target)
    except FileExistsError:
        raise taken(target) from None


def _publish_file(part: Path, target: Path) -> None:
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems have no hard links. An empty file reserves the name there.
        target.touch(exist_ok=False)
        part.replace(target)
    else:
        part.unlink()


def taken(target: Path) -> AlreadyExists:
    """The error for a path that exists already."""
    return AlreadyExists(f"{target} is there already; nothing is overwritten: choose another name", path=str(target))


def discard(path: Path) -> None:
    """Delete an unfinished file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
