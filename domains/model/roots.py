"""Folders that may be read. Symlinks of a path are resolved before the path is checked."""

from collections.abc import Sequence
from pathlib import Path

from domains.errors import ErrorReason, PermissionDenied, excerpt


class Roots:
    """The configured folders, resolved once."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(dict.fromkeys(folder.resolve() for folder in folders))

    def inside(self, path: str | Path, field: str = "path") -> Path:
        """The real path, if it lies in a root. Raises PATH_OUTSIDE_ROOTS for others, whatever symlinks lead there."""
        real = _real(path)
        if real is not None and self.holds(real):
            return real
        text = excerpt(path)
        roots = ", ".join(map(str, self.folders)) or "none are configured"
        message = f"{field} {text!r} lies outside the model roots ({roots}); start the server with --model-root for it"
        raise PermissionDenied(message, ErrorReason.PATH_OUTSIDE_ROOTS, field=field, path=text)

    def holds(self, real: Path) -> bool:
        """Whether a path without symlinks is a root or lies in one."""
        return any(real.is_relative_to(root) for root in self.folders)


def _real(path: str | Path) -> Path | None:
    """The real path. None: there is none (a NUL, a name the system cannot hold, a cycle of symlinks)."""
    try:
        return Path(path).resolve() if "\0" not in str(path) else None
    except (OSError, RuntimeError, ValueError):
        return None
