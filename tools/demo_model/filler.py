"""Pairs of captions: a plain one, and the same with filler words in front, behind the name and at the end."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.demo_model.captions import BACKGROUNDS, PREFIXES, SUFFIXES
from tools.demo_model.names import Item, lines

_PHRASE_SHARE = 0.45
"""How often filler is a phrase of the lists; else it is invented words."""
_EMPTY_SHARE = 0.03
_MAX_FILLER = 9


@dataclass(frozen=True)
class Pair:
    """Tokens of equal length, padded with the end mark."""

    plain: list[int]
    """What the teacher reads."""
    wordy: list[int]
    """What the student reads."""
    source: list[int]
    """For each of the student's places, the teacher's place whose hidden state it must have."""


class Pairs:
    """Draws pairs at random."""

    def __init__(self, tokenizer: Any, items: Sequence[Item], rng: random.Random) -> None:
        """`tokenizer`: a CLIPTokenizer."""
        self._tokenizer, self._items, self._rng = tokenizer, items, rng
        self._start, self._end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._cache: dict[str, list[int]] = {}
        names = (name for item in items for name in [item.name, *item.alias])
        self._content = {word for name in names for word in name.split()} | set(BACKGROUNDS)
        self._pieces = [token for token in sorted(tokenizer.get_vocab()) if self._is_piece(token.replace("</w>", ""))]
        self._before, self._after = lines("filler_before.txt"), lines("filler_after.txt")

    def _is_piece(self, letters: str) -> bool:
        return letters.isascii() and letters.isalpha() and letters not in self._content

    def draw(self, length: int) -> Pair:
        """One pair of `length` tokens."""
        name_part, rest = self._caption()
        plain = [self._start, *name_part, *rest]
        wordy, source = [self._start], [0]
        before, behind, at_end = self._fillers()
        place = 1
        for filler, part in ((before, name_part), (behind, rest)):
            wordy += filler + part
            source += [-1] * len(filler) + list(range(place, place + len(part)))
            place += len(part)
        wordy += at_end
        source += [-1] * len(at_end)
        # Filler stands for padding once past the teacher's end, else for the neutral start mark.
        source = [taken if taken >= 0 else (at if at >= len(plain) else 0) for at, taken in enumerate(source)]
        return Pair(
            plain=self._padded(plain, length),
            wordy=self._padded(wordy, length),
            source=(source + list(range(len(source), length)))[:length],
        )

    def _caption(self) -> tuple[list[int], list[int]]:
        """Tokens up to the name, and of what follows it."""
        rng = self._rng
        item = rng.choice(self._items)
        name = rng.choice([item.name, *item.alias])
        background = rng.choice(list(BACKGROUNDS))
        prefix, suffix = rng.choice(PREFIXES), rng.choice(SUFFIXES)
        places = [f" on a {background} background", f", {background} background", f" on {background}"]
        place = "" if rng.random() < 0.4 else rng.choice(places)
        name_part = self._tokens((prefix + name).strip())
        rest = self._tokens(suffix.strip()) + self._tokens(place.strip())
        return ([], []) if rng.random() < _EMPTY_SHARE else (name_part, rest)

    def _fillers(self) -> tuple[list[int], list[int], list[int]]:
        """In front, behind the name, at the end; a quarter of the captions stay plain."""
        rng = self._rng
        wordy = rng.random() > 0.25
        before = self._filler(self._before) if wordy and rng.random() < 0.7 else []
        behind = self._filler(self._after) if wordy and rng.random() < 0.2 else []
        at_end = self._filler(self._after) if wordy and rng.random() < 0.5 else []
        return before, behind, at_end

    def _filler(self, phrases: Sequence[str]) -> list[int]:
        rng = self._rng
        if rng.random() < _PHRASE_SHARE:
            return self._tokens(rng.choice(phrases))
        invented: list[int] = []
        for _ in range(rng.randint(1, 4)):  # so that every piece of a word has been seen as filler
            word = "".join(rng.choice(self._pieces).replace("</w>", "") for _ in range(rng.randint(1, 3)))
            if word not in self._content:
                invented += self._tokenizer(word, add_special_tokens=False).input_ids
        return invented[:_MAX_FILLER]

    def _tokens(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = self._tokenizer(text, add_special_tokens=False).input_ids if text else []
        return self._cache[text]

    def _padded(self, tokens: list[int], length: int) -> list[int]:
        return (tokens + [self._end] * length)[:length]
