"""Labels: a caller's key-value marks on a thing, their rules and their filters. The same for every thing."""

from collections.abc import Iterable

from domains.errors import Violation

Labels = tuple[tuple[str, str], ...]
"""Keys and values; each key once."""
MAX_LABELS = 32
KEY_CHARACTERS = 63
VALUE_CHARACTERS = 255


def label_violations(labels: Labels, field: str) -> list[Violation]:
    """Faults of the labels of one thing. `field`: their place in the request."""
    wrong: list[Violation] = []
    if len(labels) > MAX_LABELS or len(dict(labels)) < len(labels):
        wrong.append(Violation(field=field, message=f"at most {MAX_LABELS}, each key once"))
    if any(not 1 <= len(key) <= KEY_CHARACTERS or len(value) > VALUE_CHARACTERS for key, value in labels):
        text = f"a key has 1..{KEY_CHARACTERS} characters, a value at most {VALUE_CHARACTERS}"
        wrong.append(Violation(field=field, message=text))
    return wrong


def has_all(wanted: Iterable[tuple[str, str]], labels: Iterable[tuple[str, str]]) -> bool:
    """Whether a thing has all wanted labels. A wanted label with an empty value matches any value of its key."""
    present = dict(labels)
    return all(key in present and value in ("", present[key]) for key, value in wanted)
