"""Labels: a caller's own marks on a thing, and how a filter reads them. The same in every list."""

from collections.abc import Iterable

Labels = tuple[tuple[str, str], ...]
"""Keys and values; each key once."""


def has_all(wanted: Iterable[tuple[str, str]], labels: Iterable[tuple[str, str]]) -> bool:
    """Whether a thing has all wanted labels. A wanted label with an empty value stands for any value of its key."""
    present = dict(labels)
    return all(key in present and value in ("", present[key]) for key, value in wanted)
