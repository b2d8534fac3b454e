"""Which folders may be read. A path is followed to where it really leads before it is judged."""

from collections.abc import Sequence
from pathlib import Path

from domains.errors import ErrorReason, PermissionDenied


class Roots:
    """The configured folders, resolved once."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folder.resolve() for folder in folders)

    def inside(self, path: str | Path, field: str = "path") -> Path:
        """The real path, if it lies in a root. Raises PATH_OUTSIDE_ROOTS for one that does not, through whatever symlink."""
        text = str(path)
        if "\0" not in text:
            real = Path(text).resolve()
            if any(real == root or root in real.parents for root in self.folders):
                return real
        roots = ", ".join(map(str, self.folders)) or "none are configured"
        message = f"{field} {text!r} lies outside the model roots ({roots}); start the server with --model-root for it"
        raise PermissionDenied(message, ErrorReason.PATH_OUTSIDE_ROOTS, field=field, path=text)
