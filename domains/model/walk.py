"""Finds the model folders under the roots."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from domains.errors import DeviceOpsError, ErrorReason
from domains.model.diffusers_folder import INDEX
from domains.model.roots import Roots

MAX_DEPTH = 6
"""Most folders between a root and a model."""
_MAX_FOLDERS = 100_000

Complain = Callable[[Path, ErrorReason, str], None]
"""Called with the path that cannot be read, the reason and the message."""


def model_folders(roots: Roots, beginnings: Sequence[Path], complain: Complain) -> Iterator[Path]:
    """Folders with a model index at or below the beginnings, real and each once, in a stable order.

    Nothing below a model's own folder is read, and nothing deeper than MAX_DEPTH. Symlinks are followed, unless they
    lead out of the roots. Folders that cannot be listed are passed to `complain`.
    """
    seen: set[Path] = set()

    def unreadable(error: OSError) -> None:
        gone = isinstance(error, FileNotFoundError)
        reason = ErrorReason.PATH_NOT_FOUND if gone else ErrorReason.ILLEGAL_STATE
        complain(Path(error.filename), reason, f"{error.filename} cannot be listed: {error.strerror}")

    for beginning in beginnings:
        for place, names, files in os.walk(beginning, followlinks=True, onerror=unreadable):
            folder = _new_place(Path(place), roots, seen, complain)
            if folder is None:
                names.clear()
            elif INDEX in files:
                names.clear()
                yield folder
            elif len(seen) >= _MAX_FOLDERS:
                message = f"more than {_MAX_FOLDERS} folders; the rest was not looked at: choose narrower model roots"
                complain(folder, ErrorReason.ILLEGAL_STATE, message)
                return
            elif len(Path(place).relative_to(beginning).parts) >= MAX_DEPTH:
                names.clear()
            names.sort()


def _new_place(place: Path, roots: Roots, seen: set[Path], complain: Complain) -> Path | None:
    """The real path of the folder; None if it was seen before, lies outside, or has no valid name in the contract."""
    try:
        str(place).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(place).decode("utf-8", "backslashreplace")
        complain(Path(shown), ErrorReason.INVALID_FIELD, f"{shown} has a name that is not UTF-8; rename the folder")
        return None
    try:
        real = roots.inside(place, "folder")
    except DeviceOpsError as error:
        complain(place, error.reason, error.message)
        return None
    if real in seen:
        return None
    seen.add(real)
    return real
