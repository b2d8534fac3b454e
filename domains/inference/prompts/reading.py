"""What a prompt says, in each syntax."""

import re
from enum import StrEnum

import msgspec

from domains.inference.prompts.a1111_brackets import a1111_segments
from domains.inference.prompts.comfyui_brackets import comfyui_segments
from domains.inference.prompts.segment import Segment, merged


class Syntax(StrEnum):
    """How the text of a prompt is read."""

    PLAIN = "plain"
    """As it stands."""
    A1111 = "a1111"
    COMFYUI = "comfyui"


class LongPrompt(StrEnum):
    """What the encoder does with a prompt that is longer than the text encoder's window."""

    TRUNCATE = "truncate"
    CHUNK = "chunk"
    """It is encoded window by window."""
    REFUSE = "refuse"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The words of a prompt with their weights."""

    parts: tuple[tuple[Segment, ...], ...]
    """Each begins a window of its own; at least one."""
    syntax: Syntax

    @property
    def blank(self) -> bool:
        """Whether there are no words."""
        return not any(self.parts)

    @property
    def weighted(self) -> bool:
        """Whether some words weigh more or less than others."""
        return any(segment.weight != 1.0 for part in self.parts for segment in part)


def read(text: str, syntax: Syntax) -> Reading:
    """Read a prompt. Any text is one."""
    match syntax:
        case Syntax.PLAIN:
            parts = (merged([Segment(text)]),)
        case Syntax.A1111:
            parts = _divided(a1111_segments(text))
        case Syntax.COMFYUI:
            parts = (comfyui_segments(text),)
    return Reading(parts=parts, syntax=syntax)


_BREAK = re.compile(r"\bBREAK\b")


def _divided(segments: tuple[Segment, ...]) -> tuple[tuple[Segment, ...], ...]:
    """The segments in parts, divided at each BREAK and the blanks round it."""
    parts: list[list[Segment]] = [[]]
    for segment in segments:
        first, *others = _BREAK.split(segment.text)
        parts[-1].append(Segment(first.rstrip() if others else first, segment.weight))
        for place, other in enumerate(others, 1):
            text = other.lstrip() if place == len(others) else other.strip()
            parts.append([Segment(text, segment.weight)])
    return tuple(map(merged, parts))
