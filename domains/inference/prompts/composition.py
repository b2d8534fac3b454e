"""A1111's `a AND b:0.8`: prompts that guide together, each with its weight.

The prediction is that without a prompt plus, for each part, guidance · weight · (the part's − that without). Source: the
behaviour that AUTOMATIC1111/stable-diffusion-webui documents ("Features: Composable Diffusion"; Liu et al. 2022).
"""

import re

from domains.inference.prompts.segment import NUMBER

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(rf":\s*+({NUMBER})\s*+$")

Composition = tuple[tuple[str, float], ...]
"""Texts with their weights."""


def composed(text: str) -> Composition:
    """The parts of a text. A text without AND is one part, whatever it ends with."""
    parts = _AND.split(text)
    return ((text, 1.0),) if len(parts) == 1 else tuple(map(_weighed, parts))


def _weighed(part: str) -> tuple[str, float]:
    # Only the last colon is tried, so that the time is linear.
    colon = part.rfind(":")
    found = _WEIGHT.match(part, colon) if colon >= 0 else None
    return (part.strip(), 1.0) if found is None else (part[:colon].strip(), float(found[1]))
