"""A1111's prompt editing: `[a:b:0.5]`, `[b:0.5]`, `[a::0.5]` change with the step, `[a|b]` in every step.

A time with a dot is a share of the steps, one without it a number of steps; the words before the change hold up to that
step, counted from 1. Edits nest, and an edit within words that do not hold has no effect. Brackets without a partner, and
brackets with other colons, are text. Source: the behaviour that AUTOMATIC1111/stable-diffusion-webui documents ("Features:
Prompt editing, Alternating words").
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import chain, cycle, islice, repeat
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

    def choices(self, steps: int) -> Iterable[int]:
        """Which of its words hold in each step; -1: none."""
        if not self.time:
            return islice(cycle(range(len(self.cuts) - 1)), steps)
        first = 0 if len(self.cuts) == 4 else -1
        before = min(max(self.last_step(steps), 0), steps)
        return chain(repeat(first, before), repeat(first + 1, steps - before))

    def span(self, choice: int) -> tuple[int, int]:
        """Where these words are in the text."""
        return self.cuts[choice] + 1, self.cuts[choice + 1]


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
    words = _Words(text, edits)
    said: dict[tuple[int, ...], int] = {}
    texts: dict[str, int] = {}
    """By text: its place among the different ones."""
    by_step: list[int] = []
    for choices in zip(*(edit.choices(steps) for edit in edits), strict=True):
        if choices not in said:
            said[choices] = texts.setdefault(words.chosen(choices), len(texts))
            if len(texts) > limits.PROMPT_VARIANTS:
                raise TooManyEdits(
                    f"becomes more than {limits.PROMPT_VARIANTS} different texts, which is the most that are computed"
                )
        by_step.append(said[choices])
    return Schedule(
        texts=tuple(texts),
        by_step=tuple(by_step),
        beyond=tuple(text[edit.begin : edit.end] for edit in edits if edit.beyond(steps)),
    )


_Piece = str | int
"""A part of a text: words, or the place of an edit among all."""


def _pieces(text: str, edits: Sequence[_Edit], begins: Sequence[int], span: tuple[int, int]) -> Sequence[_Piece] | str:
    """A part of the text with its outermost edits. `begins`: of the edits. A text: there is none."""
    at, end = span
    found: list[_Piece] = []
    place = bisect_left(begins, at)
    while place < len(edits) and begins[place] < end:
        found += [text[at : begins[place]], place]
        at = edits[place].end
        place = bisect_left(begins, at)
    return [*found, text[at:end]] if found else text[at:end]


class _Words:
    """Makes the texts that the choices of a text's edits leave. Each part of the text is looked at once."""

    def __init__(self, text: str, edits: Sequence[_Edit]) -> None:
        begins = [edit.begin for edit in edits]
        whole = _pieces(text, edits, begins, (0, len(text)))
        self._whole: Sequence[_Piece] = [whole] if isinstance(whole, str) else whole
        self._branches = [
            [*(_pieces(text, edits, begins, edit.span(choice)) for choice in range(len(edit.cuts) - 1)), ""]
            for edit in edits
        ]
        """By edit and choice; the last is that of -1."""

    def chosen(self, choices: Sequence[int]) -> str:
        """The text with the words that these choices leave."""
        parts: list[str] = []
        left = [iter(self._whole)]
        while left:
            for one in left[-1]:
                inner = one if isinstance(one, str) else self._branches[one][choices[one]]
                if not isinstance(inner, str):
                    left.append(iter(inner))
                    break
                parts.append(inner)
            else:
                left.pop()
        return "".join(parts)
