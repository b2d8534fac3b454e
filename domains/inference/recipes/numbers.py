"""Numbers in the texts of other programs."""

import re
from typing import TypeVar

from domains.errors import excerpt
from domains.inference.recipes.recipe import unusable

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
Kind = TypeVar("Kind", int, float)


def number(text: str, kind: type[Kind], name: str) -> Kind:
    """The value of a setting. Raises BAD_IMAGE."""
    try:
        return kind(text[:32])
    except (ValueError, OverflowError):
        raise unusable(f"says {name}: {excerpt(text)!r}, which is no number") from None


def size_of(text: str) -> tuple[int, int] | None:
    """(width, height) of a text such as `512x768`. None: it says none."""
    found = _SIZE.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None
