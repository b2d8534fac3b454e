"""Words learned by textual inversion, as token ids of their own (Gal et al. 2022).

The ids are negative, so they are in no vocabulary, and none is the largest id, which CLIP takes for the end of the text. The
token embedding of the encoder, which is not changed, is asked for another token in their place, and its answer is replaced.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedWords:
    """The learned words of one job for one text encoder."""

    rows: Mapping[str, range]
    """By word, in small letters: its vectors."""
    vectors: Tensor
    """(vectors of all words, width), on the device."""

    def pieces(self, prompt: str) -> Iterator[str | list[int]]:
        """The prompt in its order: text between learned words, and each learned word as its ids."""
        for place, piece in enumerate(self._splitting.split(prompt)):
            yield [-1 - row for row in self.rows[piece.lower()]] if place % 2 else piece

    @cached_property
    def _splitting(self) -> re.Pattern[str]:
        # The longest first: a word can begin with another one.
        words = sorted(self.rows, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(_whole, words))})", re.IGNORECASE)


def _whole(word: str) -> str:
    """Matches the word, and not the same letters within a longer one."""
    start, end = (r"(?<!\w)" if word[0].isalnum() else "", r"(?!\w)" if word[-1].isalnum() else "")
    return start + re.escape(word) + end


class Reader:
    """Two hooks of a token embedding, which give learned words their vectors. Without such words they do nothing."""

    def __init__(self, embedding: nn.Module, present: Any) -> None:
        """`present`: a function that returns the embedding's learned words of now, or None."""
        self._present = present
        self._asked: Tensor | None = None
        embedding.register_forward_pre_hook(self._before)
        embedding.register_forward_hook(self._after)

    def _before(self, embedding: nn.Module, arguments: Any) -> Any:
        if self._present(embedding) is None:
            return None
        self._asked = arguments[0]
        return (arguments[0].clamp(min=0), *arguments[1:])

    def _after(self, embedding: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
        words, asked, self._asked = self._present(embedding), self._asked, None
        if words is None or asked is None:
            return None
        return torch.where((asked < 0)[..., None], words.vectors[(-1 - asked).clamp(min=0)], output)


_known: WeakSet[nn.Module] = WeakSet()


def hook_reader(embedding: nn.Module, present: Any) -> None:
    """Have a token embedding read learned words. Once a module."""
    if embedding not in _known:
        _known.add(embedding)
        Reader(embedding, present)
