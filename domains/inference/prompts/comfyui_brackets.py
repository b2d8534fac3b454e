"""The weights of ComfyUI's syntax: `(words)` is 1.1 times what is round it, `(words:1.3)` is 1.3, `\\(` is a bracket.

A number replaces the weight of the brackets round it, where A1111 multiplies. Brackets without a partner are text.
Source: the behaviour of comfyanonymous/ComfyUI's text encode node.
"""

import re

from domains.inference.prompts.segment import BRACKET_WEIGHT, NUMBER, Segment, merged

_BRACKET = re.compile(r"\\[()]|[()]")
_NUMBER = re.compile(rf"\s*+{NUMBER}\s*+")
_ESCAPE = re.compile(r"\\([()])")


def comfyui_segments(text: str) -> tuple[Segment, ...]:
    """The segments of a text, in order."""
    found: list[Segment] = []
    partners = _partners(text)
    begin, weight = 0, 1.0
    outer: list[tuple[int, int, float]] = []
    """(where the text inside ends, the bracket's end, the weight round it), of the open brackets."""
    for at in [*sorted(partners), len(text)]:
        while outer and at >= outer[-1][1]:
            inside, end, around = outer.pop()
            found.append(_segment(text, begin, inside, weight))
            begin, weight = end + 1, around
        if at == len(text) or partners[at] < at:
            continue
        found.append(_segment(text, begin, at, weight))
        end = partners[at]
        inside, own = _weighed(text, at + 1, end, weight)
        outer.append((inside, end, weight))
        begin, weight = at + 1, own
    found.append(_segment(text, begin, len(text), weight))
    return merged(found)


def _segment(text: str, begin: int, end: int, weight: float) -> Segment:
    return Segment(_ESCAPE.sub(r"\1", text[begin:end]), weight)


def _weighed(text: str, begin: int, end: int, around: float) -> tuple[int, float]:
    """Where the words in a bracket end, and their weight."""
    colon = text.rfind(":", begin, end)
    if colon > begin and _NUMBER.fullmatch(text, colon + 1, end):
        return colon, float(text[colon + 1 : end])
    return end, around * BRACKET_WEIGHT


def _partners(text: str) -> dict[int, int]:
    """The place of each bracket's partner; brackets without one are left out."""
    partners: dict[int, int] = {}
    waiting: list[int] = []
    for found in _BRACKET.finditer(text):
        if found[0] == "(":
            waiting.append(found.start())
        elif found[0] == ")" and waiting:
            begin, end = waiting.pop(), found.start()
            partners |= {begin: end, end: begin}
    return partners
