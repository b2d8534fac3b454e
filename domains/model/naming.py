"""Names models: the display name, and the id for requests."""

import re
from collections.abc import Set as AbstractSet
from pathlib import Path

_MAX_ID = 100


def display_name(folder: Path) -> str:
    """The folder's name; in a download cache (`models--owner--name/snapshots/<revision>`) the model's own."""
    cache = folder.parent.parent.name
    if folder.parent.name == "snapshots" and cache.startswith("models--"):
        return cache.rsplit("--", 1)[-1]
    return folder.name


def free_id_of(name: str, taken: AbstractSet[str]) -> str:
    """A display name as an id; numbered if it is taken."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower())[:_MAX_ID].strip("-.") or "model"
    number = 2
    candidate = slug
    while candidate in taken:
        candidate, number = f"{slug}-{number}", number + 1
    return candidate
