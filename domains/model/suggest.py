"""Prompts for models that learnt a list of names: whether a prompt is one of them, and which names are nearest.

The embedded model draws about 1,400 names and little else, in plain wording. It was trained with what people write around
a name (`an icon of a …`, `… on a blue background`), so that is removed before names are compared.
"""

import difflib
import re
from collections.abc import Iterable, Sequence

_MAX_CHARACTERS = 200
"""No name is longer; only this much of a prompt is read."""
_CUTOFF = 0.6
"""A name with less similarity (0..1, difflib's ratio) is not suggested."""

_MEDIUM = r"(?:flat |cute )?(?:emoji|icon|picture|drawing|illustration|image|photo)"
_FRONT = re.compile(rf"^(?:(?:an?|the)\b\s*|(?:{_MEDIUM})\s+of\b\s*|cute\s+)")
_BACK = re.compile(
    r"(?:,?\s*(?:on\s+)?(?:an?\s+)?\w+\s+background|,?\s+on\s+(?:white|pink|blue|green|yellow|purple|orange|gr[ae]y)"
    r"|\s+(?:emoji|icon)|,\s*(?:flat vector art|emoji style|simple illustration|clip art))$"
)


def knows(prompt: str, known: Iterable[str]) -> bool:
    """Whether the prompt is a known name, bare or in the wording that such models are trained with."""
    if len(prompt) > _MAX_CHARACTERS:
        return False
    names = {_tidy(name) for name in known}
    return any(form in names for form in _forms(prompt))


def suggest(prompt: str, known: Sequence[str], n: int = 3) -> list[str]:
    """At most `n` known names, nearest first: those that the prompt contains, then those that are spelt like it."""
    asked = _forms(prompt)[-1]
    words = f" {re.sub(r'[^a-z0-9]+', ' ', asked)} "
    inside = sorted((name for name in known if f" {_tidy(name)} " in words), key=len, reverse=True)
    alike = difflib.get_close_matches(asked, known, n=n, cutoff=_CUTOFF)
    return list(dict.fromkeys([*inside, *alike]))[:n]


def _forms(prompt: str) -> list[str]:
    """The prompt as typed, then with more and more wording removed; the barest last."""
    forms = [_tidy(prompt[:_MAX_CHARACTERS])]
    for form in forms:  # grows during the loop
        for wrapping in (_BACK, _FRONT):
            bare = _tidy(wrapping.sub("", form))
            if bare and bare not in forms:
                forms.append(bare)
    return sorted(forms, key=len, reverse=True)


def _tidy(text: str) -> str:
    return " ".join(text.lower().split()).strip(" ,.!")
