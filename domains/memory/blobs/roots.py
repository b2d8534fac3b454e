"""The folders whose files may become mapped blobs. A path is resolved before it is checked."""

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from domains.errors import ErrorReason, InvalidRequest, PermissionDenied, Violation, excerpt


class BlobRoots:
    """The configured folders, resolved once, and the users whose files may be mapped."""

    def __init__(self, folders: Sequence[Path] = (), owners: Collection[int] = ()) -> None:
        """`owners`: user ids besides the server's own user."""
        self.folders = tuple(dict.fromkeys(folder.resolve() for folder in folders))
        self._owners = frozenset(owners)

    def check_owner(self, opened: os.stat_result, path: Path) -> None:
        """Raise PATH_OUTSIDE_ROOTS for a file of a user whose files are not to be mapped.

        The server can read files that a caller cannot. Windows: does nothing, see SECURITY.md.
        """
        if sys.platform == "win32" or opened.st_uid in self._owners or opened.st_uid == os.geteuid():
            return
        message = (
            f"{excerpt(path)!r} belongs to the user {opened.st_uid}, not to the server's user {os.geteuid()}; write the"
            " file as the server's user, or name its owner in `blob_owners`"
        )
        raise PermissionDenied(message, ErrorReason.PATH_OUTSIDE_ROOTS, path=excerpt(path))

    def inside(self, path: str, field: str) -> Path:
        """The resolved path. INVALID_FIELD if it is not absolute, PATH_OUTSIDE_ROOTS if it leads outside the roots."""
        if "\0" in path or not Path(path).is_absolute():
            message = "is no absolute path of a file"
            raise InvalidRequest([Violation(field=field, message=message)])
        try:
            real = Path(path).resolve()
        except (OSError, RuntimeError, ValueError):
            raise self._outside(path) from None  # a loop of symbolic links, or a name that is too long
        if not self.holds(real):
            raise self._outside(path)
        return real

    def holds(self, real: Path) -> bool:
        """Whether a path without symbolic links is inside a root."""
        return any(real.is_relative_to(root) for root in self.folders)

    def _outside(self, path: str) -> PermissionDenied:
        roots = ", ".join(map(str, self.folders)) or "none are configured"
        message = f"{excerpt(path)!r} lies outside the blob roots ({roots}); add its folder to `blob_roots`"
        return PermissionDenied(message, ErrorReason.PATH_OUTSIDE_ROOTS, path=excerpt(path))
