"""A1111's prompt editing: `[a:b:0.5]`, `[b:0.5]`, `[a::0.5]` change with the step, `[a|b]` in every step.

A time with a dot is a share of the steps, one without it a number of steps; the words before the change hold up to that
step, counted from 1. Edits nest, and an edit within words that do not hold has no effect. Brackets without a partner, and
brackets with other colons, are text. Source: the behaviour that AUTOMATIC1111/stable-diffusion-webui documents ("Features:
Prompt editing, Alternating words").
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from domains.inference import limits

_MARK = re.compile(r"\\.|[\[\]|:()]", re.DOTALL)
_TIME = re.compile(r"\s*+(\d++(?:\.\d*+)?|\.\d++)\s*+")


class _Edit(NamedTuple):
    """One pair of brackets that changes with the step. The words lie between two neighbouring `cuts`."""

    begin: int
    end: int
    cuts: tuple[int, ...]
    """Places of the separators, the opening and the closing bracket included."""
    time: str = ""
    """Empty: the words take turns."""

    def last_step(self, steps: int) -> int:
        """The last step, from 1, in which the first words hold."""
        time = float(self.time)
        return int(min(steps, time * steps if "." in self.time else time))

    def beyond(self, steps: int) -> bool:
        """Whether the words after the change never hold."""
        return bool(self.time) and self.last_step(steps) >= steps

    def choice(self, step: int, steps: int) -> int:
        """Which of its words hold in a step, from 1; -1: none."""
        if not self.time:
            return (step - 1) % (len(self.cuts) - 1)
        changed = step > self.last_step(steps)
        return changed if len(self.cuts) == 4 else int(changed) - 1

    def span(self, choice: int) -> tuple[int, int]:
        """Where these words are in the text."""
        return (0, 0) if choice < 0 else (self.cuts[choice] + 1, self.cuts[choice + 1])


class _Open:
    """A bracket that is not closed yet."""

    def __init__(self, begin: int, round_one: bool) -> None:
        self.begin, self.round_one = begin, round_one
        self.colons: list[int] = []
        self.bars: list[int] = []


def edits_of(text: str) -> list[_Edit]:
    """The edits of a text by their beginnings, in one pass."""
    found: list[_Edit] = []
    opened: list[_Open] = []
    for mark in _MARK.finditer(text):
        at, said = mark.start(), mark[0]
        if said in "[(":
            opened.append(_Open(at, said == "("))
        elif not opened:
            continue
        elif said == ")" and opened[-1].round_one:
            opened.pop()
        elif said == "]" and not opened[-1].round_one:
            if (edit := _closed(text, opened.pop(), at)) is not None:
                found.append(edit)
        elif said == ":":
            opened[-1].colons.append(at)
        elif said == "|":
            opened[-1].bars.append(at)
    return sorted(found)


def _closed(text: str, one: _Open, end: int) -> _Edit | None:
    """The edit that a pair of square brackets means. None: the brackets are text."""
    if one.colons:
        time = _TIME.fullmatch(text, one.colons[-1] + 1, end)
        if time is None or len(one.colons) > 2:
            return None
        cuts = (one.begin, *one.colons, end)
        return _Edit(one.begin, end + 1, cuts if len(one.colons) > 1 else cuts[:2], time[1])
    return _Edit(one.begin, end + 1, (one.begin, *one.bars, end)) if one.bars else None


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a prompt in each step."""

    texts: tuple[str, ...]
    """The different ones."""
    by_step: tuple[int, ...]
    """Which of them counts in each step."""
    beyond: tuple[str, ...] = ()
    """Edits whose time is at the end of the steps or later."""


class TooManyEdits(Exception):
    """A text has more edits, or becomes more different texts, than are computed."""


def scheduled(text: str, steps: int) -> Schedule:
    """The text of each step. Raises `TooManyEdits`."""
    edits = edits_of(text)
    if not edits:
        return Schedule(texts=(text,), by_step=(0,) * steps)
    if len(edits) > limits.PROMPT_EDITS:
        raise TooManyEdits(f"has {len(edits)} edits by step; at most {limits.PROMPT_EDITS} are computed")
    said: dict[tuple[int, ...], str] = {}
    by_step: list[str] = []
    for step in range(1, steps + 1):
        choices = tuple(edit.choice(step, steps) for edit in edits)
        if choices not in said:
            said[choices] = _chosen(text, edits, choices)
        by_step.append(said[choices])
    texts = tuple(dict.fromkeys(by_step))
    if len(texts) > limits.PROMPT_VARIANTS:
        raise TooManyEdits(f"becomes {len(texts)} different texts; at most {limits.PROMPT_VARIANTS} are computed")
    places = {one: place for place, one in enumerate(texts)}
    return Schedule(
        texts=texts,
        by_step=tuple(places[one] for one in by_step),
        beyond=tuple(text[edit.begin : edit.end] for edit in edits if edit.beyond(steps)),
    )


def _chosen(text: str, edits: Sequence[_Edit], choices: Sequence[int]) -> str:
    """The text with the words that these choices leave."""
    begins = [edit.begin for edit in edits]
    parts: list[str] = []
    left = [(0, len(text))]
    while left:
        begin, end = left.pop()
        at = bisect_left(begins, begin)
        if at == len(edits) or begins[at] >= end:
            parts.append(text[begin:end])
            continue
        parts.append(text[begin : begins[at]])
        left += [(edits[at].end, end), edits[at].span(choices[at])]
    return "".join(parts)
