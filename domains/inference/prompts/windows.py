"""Lays the tokens of a prompt out in the windows of a text encoder."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from domains.inference.prompts.reading import LongPrompt, Reading, Segment, Syntax

_BACK = 20
"""Tokens that may move to the next window, so that it begins after a comma; A1111's default."""
_SHORT = 8
"""A run of fewer tokens is not divided between two windows; ComfyUI's number."""


class Token(NamedTuple):
    """A token and its weight."""

    id: int
    weight: float


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of a prompt by window, start and end not included."""

    windows: tuple[tuple[Token, ...], ...]
    """At least one; each holds at most as many tokens as the encoder has room for."""
    count: int
    """Tokens of the whole prompt."""

    @property
    def read(self) -> int:
        """How many of them are in a window."""
        return sum(map(len, self.windows))


def laid_out(
    reading: Reading, long: LongPrompt, room: int, tokenize: Callable[[str], Sequence[int]], comma: int | None
) -> Windows:
    """The windows of a prompt.

    `room`: tokens of a window. `tokenize`: the ids of a text, without start and end. `comma`: the id of a comma;
    None: no window is made to end at one.
    """
    windows: list[tuple[Token, ...]] = []
    count = 0
    for part in reading.parts:
        runs = [_tokens(segment, tokenize) for segment in part]
        tokens = [token for run in runs for token in run]
        count += len(tokens)
        if long is not LongPrompt.CHUNK:
            windows.append(tuple(tokens[:room]))
        elif reading.syntax is Syntax.COMFYUI:
            windows += _whole_runs(runs, room)
        else:
            windows += _after_commas(tokens, room, comma)
    return Windows(windows=tuple(windows), count=count)


def _tokens(segment: Segment, tokenize: Callable[[str], Sequence[int]]) -> list[Token]:
    return [Token(one, segment.weight) for one in tokenize(segment.text)]


def _after_commas(tokens: list[Token], room: int, comma: int | None) -> list[tuple[Token, ...]]:
    """Full windows; one that is followed by another ends at its last comma, if that is near its end."""
    found: list[tuple[Token, ...]] = []
    begin = 0
    while len(tokens) - begin > room:
        end = begin + room
        near = range(end - 1, max(begin, end - 1 - _BACK), -1)
        if tokens[end].id != comma:
            end = next((at + 1 for at in near if tokens[at].id == comma), end)
        found.append(tuple(tokens[begin:end]))
        begin = end
    return [*found, tuple(tokens[begin:])]


def _whole_runs(runs: list[list[Token]], room: int) -> list[tuple[Token, ...]]:
    """Full windows; a short run that does not fit into the rest of one begins the next."""
    found: list[list[Token]] = [[]]
    for run in runs:
        left = run
        while left:
            free = room - len(found[-1])
            if len(left) <= free:
                found[-1] += left
                break
            if len(run) >= _SHORT or len(run) > room:
                found[-1] += left[:free]
                left = left[free:]
            found.append([])
    return list(map(tuple, found))
