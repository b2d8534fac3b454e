"""What a text encoder reads of a prompt: its words by weight and window, with the tokens that they become."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby
from typing import NamedTuple

import msgspec

from domains.inference.prompts.reading import Reading, Segment
from domains.inference.prompts.windows import Windows


class Piece(NamedTuple):
    """One token of a text."""

    id: int
    text: str
    """As the tokenizer writes it: `owl</w>`."""
    end: int | None = None
    """Where its characters end in the text. None: the tokenizer does not say."""


class PromptSegment(msgspec.Struct, frozen=True, kw_only=True):
    """Words of one weight in one window."""

    text: str
    weight: float
    tokens: tuple[str, ...]
    window: int
    """From 0. Of truncated words: the window that has no room for them."""
    truncated: bool = False


class PromptReading(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt as one text encoder reads it."""

    field: str
    """The text's path in a generation: `second_prompt`."""
    encoder: str
    """`text_encoder`, `text_encoder_2` …"""
    segments: tuple[PromptSegment, ...]
    token_count: int
    """Tokens of the whole text, without those that mark its start and end."""
    truncated_token_count: int
    window_tokens: int
    """Tokens that one window has room for."""


Pieces = Callable[[str], Sequence[Piece]]
"""The tokens of a text, without start and end."""


class _Place(NamedTuple):
    """Where a token goes."""

    window: int
    truncated: bool


def segments_of(reading: Reading, windows: Windows, pieces: Pieces) -> tuple[PromptSegment, ...]:
    """The segments of a prompt that was laid out in windows; a segment in two windows becomes two."""
    cut = [[(segment, pieces(segment.text)) for segment in part] for part in reading.parts]
    places = _places(windows, [sum(len(tokens) for _, tokens in part) for part in cut])
    found: list[PromptSegment] = []
    for segment, tokens in chain.from_iterable(cut):
        begin = 0
        placed = [(next(places), token) for token in tokens]
        for place, run in groupby(placed, key=lambda one: one[0]):
            some = [token for _, token in run]
            whole = len(some) == len(tokens)
            text = segment.text if whole else _words(segment, begin, some)
            found.append(_shown(segment, text, some, place))
            begin = some[-1].end or begin
    return tuple(found)


def _places(windows: Windows, counts: Sequence[int]) -> Iterator[_Place]:
    """The place of each token in order. `counts`: tokens of each part of the prompt."""
    lengths = [len(window) for window in windows.windows]
    if windows.read == windows.count:
        return (_Place(window, truncated=False) for window, length in enumerate(lengths) for _ in range(length))
    # Only whole windows are cut, and then each part has one.
    return (_Place(part, truncated=at >= lengths[part]) for part, count in enumerate(counts) for at in range(count))


def _words(segment: Segment, begin: int, tokens: Sequence[Piece]) -> str:
    """The characters of a few tokens."""
    end = tokens[-1].end
    return "".join(token.text for token in tokens) if end is None else segment.text[begin:end]


def _shown(segment: Segment, text: str, tokens: Sequence[Piece], place: _Place) -> PromptSegment:
    return PromptSegment(
        text=text,
        weight=segment.weight,
        tokens=tuple(token.text for token in tokens),
        window=place.window,
        truncated=place.truncated,
    )
