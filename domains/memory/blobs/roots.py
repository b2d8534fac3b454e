"""The folders whose files may become mapped blobs. A path is resolved before it is checked."""

from collections.abc import Sequence
from pathlib import Path

from domains.errors import ErrorReason, InvalidRequest, PermissionDenied, Violation

_SHOWN = 256


class BlobRoots:
    """The configured folders, resolved once."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self.folders = tuple(dict.fromkeys(folder.resolve() for folder in folders))

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
        message = f"{path[:_SHOWN]!r} lies outside the blob roots ({roots}); add its folder to `blob_roots`"
        return PermissionDenied(message, ErrorReason.PATH_OUTSIDE_ROOTS, path=path[:_SHOWN])
