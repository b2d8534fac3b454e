"""A note beside a result that is about to be published: it says which file or folder is whole and what was written.

A process can die between the last byte, the name of the result, and the row that makes it known. The next attempt then
finds the result by the note, under either name. It does not write it again, and does not mistake it for a foreign file.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from domains.model.conversion import Written
from domains.model.publish import PART, discard, is_part, part_of, publish

_MARK = "done"
_END = f".{_MARK}{PART}"


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    device: int
    inode: int
    """Of the result: a rename keeps both."""
    written: Written


def write_note(target: Path, key: str, written: Written) -> None:
    """Note that the part of this key is whole. Raises OSError."""
    found = part_of(target, key).lstat()
    note = _Note(device=found.st_dev, inode=found.st_ino, written=written)
    path = _path(target, key)
    with path.open("wb") as file:
        file.write(msgspec.json.encode(note))
        file.flush()
        os.fsync(file.fileno())


def finished(target: Path, key: str) -> Written | None:
    """What an earlier attempt has written, if its result is whole; gives the result its final name. None: begin anew."""
    note = _read(target, key)
    if note is None:
        return None
    part = part_of(target, key)
    if not _is_result(target, note):
        if not _is_result(part, note):
            return None
        if target.is_dir() and not any(target.iterdir()):
            # An empty folder reserved the name, and the process died before the rename.
            target.rmdir()
        publish(part, target)
    elif os.path.lexists(part):
        discard(part)  # the second name of a file that was linked
    return note.written


def being_published(folder: Path) -> Iterator[Path]:
    """The places in a folder beside which there is a note, whatever is there. None for a folder that cannot be listed."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if is_part(name) and name.endswith(_END):
                yield folder / name[1 : -len(_END)].rpartition(".")[0]


def take_back(target: Path, key: str) -> None:
    """Delete the result of the noted attempt, if it has its name. What else is there stays."""
    note = _read(target, key)
    if note is not None and _is_result(target, note):
        discard(target)


def forget_note(target: Path, key: str) -> None:
    """Delete the note, if there is one."""
    _path(target, key).unlink(missing_ok=True)


def _path(target: Path, key: str) -> Path:
    return part_of(target, f"{key}.{_MARK}")


def _read(target: Path, key: str) -> _Note | None:
    try:
        return msgspec.json.decode(_path(target, key).read_bytes(), type=_Note)
    except (OSError, msgspec.DecodeError):
        return None  # There is none, or the process died while it wrote it: nothing was published.


def _is_result(path: Path, note: _Note) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (note.device, note.inode)
