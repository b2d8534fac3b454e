"""Reads prompts as text encoders do, with the tokenizers of their models alone: no weights are loaded."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from domains.errors import ErrorReason, FailedPrecondition
from domains.inference.on_device.adapters.adapter_file import AdapterFile, read_adapter
from domains.inference.on_device.adapters.learned_words import LearnedWords
from domains.inference.on_device.adapters.words_fit import check_new, vectors_of
from domains.inference.on_device.clip_text import MARKS, only, windows_of
from domains.inference.on_device.families.z_image import chat_of
from domains.inference.prompts import (
    FieldPrompt,
    LongPrompt,
    Piece,
    Prompt,
    PromptReading,
    Reading,
    Segment,
    Syntax,
    Windows,
    laid_out,
    segments_of,
)
from domains.inference.textual_inversions import ResolvedTextualInversion
from domains.model.families import FAMILIES, Family
from domains.model.model import Model
from domains.model.on_device import Words, tokenizers

_KEPT = 2
"""Models whose tokenizers are kept."""

_CHAT = "z_image"
"""The family whose encoder reads prompts as questions of a chat."""

Learned = Sequence[tuple[ResolvedTextualInversion, Model]]
"""Textual inversions with their entries in the catalogue."""


class _Encoder(NamedTuple):
    """A text encoder's tokenizer, with the learned words that the encoder reads."""

    id: str
    place: int
    words: Any
    learned: LearnedWords | None

    def pieces(self, text: str) -> list[Piece]:
        """The tokens of a text, without start and end."""
        found: list[Piece] = []
        begin = 0
        for part in [text] if self.learned is None else self.learned.pieces(text):
            if isinstance(part, str):
                found += _pieces(self.words, part, begin)
                begin += len(part)
                continue
            assert self.learned is not None
            token, rows = next(one for one in self.learned.rows.items() if one[1].start == -1 - part[0])
            begin += len(token)
            found += [Piece(one, token if len(rows) == 1 else f"{token}[{at}]", begin) for at, one in enumerate(part)]
        return found

    def ids(self, text: str) -> list[int]:
        return [piece.id for piece in self.pieces(text)]


class PromptReader:
    """Keeps the tokenizers of the models that it was asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Mapping[str, Words]] = OrderedDict()

    def read(self, model: Model, prompts: Sequence[FieldPrompt], learned: Learned) -> tuple[PromptReading, ...]:
        """Each prompt with each text encoder that reads it.

        Raises COMPONENT_MISSING, MODEL_CORRUPT; INVALID_FIELD for too many windows, and for a learned word that is one of
        the model's own; MODEL_INCOMPATIBLE for a textual inversion of another kind of model.
        """
        family = FAMILIES[model.family]
        encoders = self._encoders(model, family, learned)
        read = _in_windows if family.reads_windows else _in_one
        return tuple(_read(one, encoder, *read(one.prompt, encoder, family)) for one in prompts for encoder in encoders)

    def _encoders(self, model: Model, family: Family, learned: Learned) -> list[_Encoder]:
        files = [(word, read_adapter(entry)) for word, entry in learned]
        return [
            _Encoder(name, place, words, _learned(model, family, name, words, files))
            for place, (name, words) in enumerate(self._tokenizers(model).items())
        ]

    def _tokenizers(self, model: Model) -> Mapping[str, Words]:
        key = (model.id, model.sha256)
        if key not in self._kept:
            self._kept[key] = tokenizers(model)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _learned(
    model: Model,
    family: Family,
    encoder: str,
    words: Words,
    files: Sequence[tuple[ResolvedTextualInversion, AdapterFile]],
) -> LearnedWords | None:
    """The learned words of an encoder, each with as many rows as its file has vectors."""
    rows: dict[str, range] = {}
    begin = 0
    for place, (word, file) in enumerate(files):
        for name in [name for name, reader in family.learned_words.items() if reader == encoder]:
            vectors = vectors_of(file, name)
            if vectors is None:
                message = f"textual inversion {word.model_id} has no vectors for {encoder} of model {model.id}"
                raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=model.id)
            check_new(place, word.token, words)
            rows[word.token.lower()] = range(begin, begin + len(vectors))
            begin += len(vectors)
    return LearnedWords(rows=rows, vectors=torch.empty(0)) if rows else None


class _Laid(NamedTuple):
    """A prompt in windows."""

    reading: Reading
    windows: Windows
    room: int


def _in_windows(prompt: Prompt, encoder: _Encoder, family: Family) -> _Laid:
    tokens: int = encoder.words.model_max_length
    comma = only(encoder.ids(","))
    found = windows_of(prompt, encoder.place, tokens, encoder.ids, comma)
    return _Laid(prompt.reading(encoder.place), found, tokens - MARKS)


def _in_one(prompt: Prompt, encoder: _Encoder, family: Family) -> _Laid:
    """The prompt for a family that cuts plain text to one window."""
    words = encoder.words
    marks = words(chat_of(words, "") if family.id == _CHAT else "", verbose=False).input_ids
    room = min(words.model_max_length, family.prompt_tokens) - len(marks)
    reading = Reading(parts=((Segment(prompt.text_of(encoder.place)),),), syntax=Syntax.PLAIN)
    return _Laid(reading, laid_out(reading, LongPrompt.TRUNCATE, room, encoder.ids, None), room)


def _read(one: FieldPrompt, encoder: _Encoder, reading: Reading, windows: Windows, room: int) -> PromptReading:
    return PromptReading(
        field=one.field_of(encoder.place),
        encoder=encoder.id,
        segments=segments_of(reading, windows, encoder.pieces),
        token_count=windows.count,
        truncated_token_count=windows.count - windows.read,
        window_tokens=room,
    )


def _pieces(words: Any, text: str, begin: int) -> list[Piece]:
    """The tokenizer's own tokens. `begin`: where the text begins in the words that are reported."""
    fast = bool(getattr(words, "is_fast", False))
    found = words(text, add_special_tokens=False, truncation=False, verbose=False, return_offsets_mapping=fast)
    ends = [begin + end for _, end in found["offset_mapping"]] if fast else [None] * len(found.input_ids)
    names = words.convert_ids_to_tokens(found.input_ids)
    return [Piece(*one) for one in zip(found.input_ids, names, ends, strict=True)]
