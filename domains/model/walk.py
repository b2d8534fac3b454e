"""Finds the models under the roots: folders with an index, folders of one component, single files."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from domains.errors import DeviceOpsError, ErrorReason
from domains.model.diffusers_folder import INDEX
from domains.model.places import Form, Place, forms
from domains.model.publish import is_part
from domains.model.roots import Roots

MAX_DEPTH = 6
"""Most folders between a root and a model."""
_MAX_FOLDERS = 100_000

Complain = Callable[[Path, ErrorReason, str], None]
"""Called with the path that cannot be read, the reason and the message."""


def model_folders(roots: Roots, beginnings: Sequence[Path], complain: Complain) -> Iterator[Path]:
    """Folders with a model index, as `places` finds them."""
    return (place.path for place in places(roots, beginnings, complain) if place.form is Form.FOLDER)


def places(roots: Roots, beginnings: Sequence[Path], complain: Complain) -> Iterator[Place]:
    """Models at or below the beginnings, at real paths and each once, in a stable order.

    Nothing below a folder with an index is read, nothing deeper than MAX_DEPTH, and no folder that is being written.
    Symlinks are followed, unless they lead out of the roots. Folders that cannot be listed are passed to `complain`.
    """
    seen: set[Path] = set()

    def unreadable(error: OSError) -> None:
        gone = isinstance(error, FileNotFoundError)
        reason = ErrorReason.PATH_NOT_FOUND if gone else ErrorReason.ILLEGAL_STATE
        complain(Path(error.filename), reason, f"{error.filename} cannot be listed: {error.strerror}")

    for beginning in beginnings:
        if beginning.is_file():
            yield from _in_folder(beginning.parent, [beginning.name], roots, seen, complain)
        for place, names, files in os.walk(beginning, followlinks=True, onerror=unreadable):
            folder = _new_place(Path(place), roots, seen, complain)
            if folder is None:
                names.clear()
                continue
            if INDEX in files:
                names.clear()
                yield Place(path=folder, form=Form.FOLDER)
                continue
            yield from _in_folder(folder, files, roots, seen, complain)
            if len(seen) >= _MAX_FOLDERS:
                message = f"more than {_MAX_FOLDERS} folders; the rest was not looked at: choose narrower model roots"
                complain(folder, ErrorReason.ILLEGAL_STATE, message)
                return
            if len(Path(place).relative_to(beginning).parts) >= MAX_DEPTH:
                names.clear()
            names[:] = sorted(name for name in names if not is_part(name))


def _in_folder(
    folder: Path, files: Sequence[str], roots: Roots, seen: set[Path], complain: Complain
) -> Iterator[Place]:
    """The models among the files of a folder, at its real path."""
    for form, name in forms(files):
        if form is Form.COMPONENT:
            yield Place(path=folder, form=form)
        elif (real := _new_file(folder / name, roots, seen, complain)) is not None:
            yield Place(path=real, form=form, name=name)


def _new_file(path: Path, roots: Roots, seen: set[Path], complain: Complain) -> Path | None:
    """The real path of a file in a real folder; None as in `_new_place`."""
    # Most files are no links: their path is real already.
    return _new_place(path, roots, seen, complain) if path.is_symlink() else _new_real(path, seen, complain)


def _new_place(place: Path, roots: Roots, seen: set[Path], complain: Complain) -> Path | None:
    """The real path of a folder or file; None if it was seen before, lies outside, or has no valid name in the contract."""
    if not _named(place, complain):
        return None
    try:
        real = roots.inside(place, "folder")
    except DeviceOpsError as error:
        complain(place, error.reason, error.message)
        return None
    return _once(real, seen)


def _new_real(path: Path, seen: set[Path], complain: Complain) -> Path | None:
    if not _named(path, complain):
        return None
    return _once(path, seen)


def _once(real: Path, seen: set[Path]) -> Path | None:
    if real in seen:
        return None
    seen.add(real)
    return real


def _named(place: Path, complain: Complain) -> bool:
    """Whether the contract can carry its name."""
    try:
        str(place).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(place).decode("utf-8", "backslashreplace")
        complain(Path(shown), ErrorReason.INVALID_FIELD, f"{shown} has a name that is not UTF-8; rename it")
        return False
    return True
