"""Names models: the display name, and the id for requests."""

import re
from collections.abc import Set as AbstractSet
from pathlib import Path

from domains.errors import Violation, excerpt

_MAX_ID = 100
_ID = re.compile(r"[a-z0-9._-]{1,63}")


def display_name(folder: Path) -> str:
    """The folder's name; in a download cache (`models--owner--name/snapshots/<revision>`) the model's own."""
    cache = folder.parent.parent.name
    if folder.parent.name == "snapshots" and cache.startswith("models--"):
        return cache.rpartition("--")[2]
    return folder.name


def free_id_of(name: str, taken: AbstractSet[str]) -> str:
    """A display name as an id; numbered if it is taken."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower())[:_MAX_ID].strip("-.") or "model"
    number = 2
    candidate = slug
    while candidate in taken:
        candidate, number = f"{slug}-{number}", number + 1
    return candidate


def id_violations(model_id: str, field: str) -> list[Violation]:
    """What is wrong with an id that a caller chooses. Nothing, if it is empty."""
    if not model_id or _ID.fullmatch(model_id):
        return []
    text = f"{excerpt(model_id)!r} is no id; it has 1..63 characters of a-z 0-9 - _ ."
    return [Violation(field=field, message=text, allowed="a-z 0-9 - _ .")]
