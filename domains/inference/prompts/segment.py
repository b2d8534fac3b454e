"""Words of a prompt that weigh the same."""

from typing import NamedTuple


class Segment(NamedTuple):
    """A run of text with one weight."""

    text: str
    weight: float = 1.0


NUMBER = r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)"
"""Pattern of a weight, without backtracking: a prompt of 32 KiB is read in linear time."""
BRACKET_WEIGHT = 1.1
"""Weight of what stands in brackets without a number, in both syntaxes."""


def merged(segments: list[Segment]) -> tuple[Segment, ...]:
    """The segments without empty ones. Neighbours of one weight become one, so that no word is cut at a former bracket."""
    found: list[Segment] = []
    for segment in segments:
        if not segment.text:
            continue
        if found and found[-1].weight == segment.weight:
            found[-1] = Segment(found[-1].text + segment.text, segment.weight)
        else:
            found.append(segment)
    return tuple(found)
