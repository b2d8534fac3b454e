"""Chooses the names of the files for pictures before the generation begins."""

import os
import re
from pathlib import Path

from server.cli.console.failure import USAGE, CliError

FORMATS = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "avif": "image/avif"}
"""Media types by ending."""

_EXTENSIONS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/avif": ".avif"}
_NAME_LENGTH = 60
_SHOWN = 120
"""Most characters of a path in a message."""


def media_type_of(format_name: str | None, out: Path | None) -> str:
    """The media type of the format's name or of the ending of `out`; PNG if there is neither.

    Raises `CliError` (usage) for an unknown ending, and for one that contradicts the name.
    """
    ending = out.suffix.removeprefix(".").lower() if out is not None else ""
    if ending and ending not in FORMATS:
        raise CliError(f"--out {out}: the ending must be one of {', '.join(f'.{known}' for known in FORMATS)}", USAGE)
    asked, told = FORMATS.get(format_name or ""), FORMATS.get(ending)
    if asked and told and asked != told:
        raise CliError(f"--format {format_name} contradicts the ending of --out {out}; leave one of them out", USAGE)
    return asked or told or "image/png"


def targets(prompt: str, out: Path | None, count: int, media_type: str, force: bool) -> list[Path]:
    """One path for each picture; without `force`, none of the files exists.

    `out` is used as given, with the format's ending if it has none; several pictures are numbered, `apple-1.png` …
    Without `out` the prompt names the file, with a number if the name exists. Makes missing folders. Raises `CliError`
    (usage) if a file exists or a folder cannot be made.
    """
    extension = _EXTENSIONS[media_type]
    if out is None:
        return _free_names(Path(slug(prompt)), count, extension, force)
    base = out if out.suffix else out.with_name(out.name + extension)
    paths = _numbered(base.with_suffix(""), count, base.suffix)
    for path in paths:
        _must_be_writable(path, force)
    return paths


def slug(prompt: str) -> str:
    """A file name for a prompt: `A red apple!` → `a-red-apple`; `picture` for a prompt without letters."""
    words = re.findall(r"\w+", prompt.lower())
    return "-".join(words)[:_NAME_LENGTH].strip("-_") or "picture"


def _free_names(stem: Path, count: int, extension: str, force: bool) -> list[Path]:
    paths, attempt = _numbered(stem, count, extension), 1
    while not force and any(is_taken(path) for path in paths):
        attempt += 1
        paths = _numbered(stem.with_name(f"{stem.name}-take{attempt}"), count, extension)
    for path in paths:
        _must_be_writable(path, force)
    return paths


def _numbered(stem: Path, count: int, extension: str) -> list[Path]:
    if count == 1:
        return [stem.with_name(stem.name + extension)]
    digits = len(str(count))
    return [stem.with_name(f"{stem.name}-{number:0{digits}d}{extension}") for number in range(1, count + 1)]


def _must_be_writable(path: Path, force: bool) -> None:
    if is_taken(path):
        if path.is_dir():
            raise CliError(f"{path} is a folder; name a file", USAGE)
        if not force:
            raise CliError(f"{path} exists; choose another name, or overwrite it with --force", USAGE)
    make_folder(path.parent)
    if not os.access(path.parent, os.W_OK):
        raise CliError(f"the folder {path.parent} cannot be written to; choose another with --out", USAGE)


def is_taken(path: Path) -> bool:
    """Whether a file or folder has this name. Raises `CliError` (usage) for a name that no file can have."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CliError(f"--out {_shown(path)}: {why}; choose another name", USAGE) from error
    return True


def _shown(path: Path) -> str:
    text = str(path)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. Raises `CliError` (usage) if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"cannot make the folder {_shown(folder)}: {error.strerror}", USAGE) from error
