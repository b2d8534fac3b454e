"""Reads a model's tokenizers, and fits each to its text encoder."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn
from transformers import (
    CLIPTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, excerpt
from domains.model.component_config import read_config
from domains.model.families import FAMILIES
from domains.model.json_file import read_object
from domains.model.kind import ModelKind
from domains.model.model import Model
from domains.model.tokenizer_settings import FILES, known_settings
from domains.model.weight_file import open_judged
from domains.system_errors import wrapped_system_error

_CONFIG = "tokenizer_config.json"
_MAX_BYTES = 64 * 1024 * 1024
_SUFFIXES = (".json", ".txt", ".model", ".jinja")
_FEWEST = 3
"""A start token, one word and an end token."""


Words = PreTrainedTokenizerBase
"""A tokenizer of any class."""

_CLASSES: Mapping[str, Any] = {
    "CLIPTokenizer": CLIPTokenizer,
    "T5Tokenizer": T5Tokenizer,
    "LlamaTokenizer": LlamaTokenizer,
    "Qwen2Tokenizer": Qwen2Tokenizer,
}
"""The library's classes. A file chooses only among those that the family's facts name, because a class is code."""


def tokenizer_of(text_encoder: str) -> str:
    """The tokenizer's component for a text encoder's: `tokenizer_2` for `text_encoder_2`."""
    return text_encoder.replace("text_encoder", "tokenizer")


def tokenizer(model: Model, component: str) -> Words:
    """A tokenizer of the model. Raises COMPONENT_MISSING or MODEL_CORRUPT.

    The library opens files by name, so it reads copies of the checked ones.
    """
    config = read_config(model, component, _CONFIG)
    with TemporaryDirectory(prefix="tokenizer-") as copies:
        for name, content in _contents(model, component, config).items():
            (Path(copies) / name).write_bytes(content)
        try:
            return _class_of(model, component, config).from_pretrained(copies, local_files_only=True)
        except Exception as error:  # the library raises bare exceptions for files that it cannot read
            if known := wrapped_system_error(error):
                raise known from error
            message = f"the files in {component}/ cannot be read: {excerpt(error)}; replace them"
            raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=component) from error


def fit(words: Words, component: str, encoder: nn.Module, tokens: int) -> None:
    """Limit the tokenizer to the encoder's number of positions; to `tokens` if it has none.

    Raises MODEL_INCOMPATIBLE for unknown words.
    """
    config: Any = encoder.config
    _limit(words, int(getattr(config, "max_position_embeddings", tokens)))
    known, largest = int(config.vocab_size), max(words.get_vocab().values(), default=-1)
    if largest >= known:
        message = f"the tokenizer has the word {largest}; the text encoder's vocab_size is {known}: they do not fit"
        raise FailedPrecondition(
            message, ErrorReason.MODEL_INCOMPATIBLE, component=component, word=largest, words=known
        )


def tokenizers(model: Model) -> Mapping[str, Words]:
    """The tokenizers of the model's text encoders, in their order, limited as `fit` does; no text encoder is built.

    Raises COMPONENT_MISSING or MODEL_CORRUPT.
    """
    there = {part.id for part in model.components}
    found: dict[str, Words] = {}
    for part in FAMILIES[model.family].parts:
        if part.kind is ModelKind.TEXT_ENCODER and part.id in there:
            words = found[part.id] = tokenizer(model, tokenizer_of(part.id))
            positions = read_config(model, part.id, "config.json").get("max_position_embeddings", part.tokens)
            _limit(words, positions if isinstance(positions, int) and positions >= _FEWEST else part.tokens)
    return found


def _limit(words: Words, positions: int) -> None:
    room: Any = words.model_max_length
    sane = isinstance(room, int | float) and not isinstance(room, bool) and room >= _FEWEST
    words.model_max_length = int(min(room, positions)) if sane else positions


def _class_of(model: Model, component: str, config: Mapping[str, Any]) -> Any:
    part = FAMILIES[model.family].part(component)
    if part is None or not part.classes:
        return PreTrainedTokenizerFast
    named = config.get("tokenizer_class")
    return _CLASSES[(named if named in part.classes else part.classes[0]).removesuffix("Fast")]


def _contents(model: Model, component: str, config: Mapping[str, Any]) -> dict[str, bytes]:
    paths = next((part.files for part in model.components if part.id == component), ())
    found: dict[str, bytes] = {}
    left = _MAX_BYTES
    for path in paths:
        name = Path(path).name
        if name.endswith(_SUFFIXES) and name != _CONFIG:
            with open_judged(model, path) as file:
                found[name] = file.read(left + 1)
            left -= len(found[name])
            if left < 0:
                message = f"the files in {component}/ have more than {_MAX_BYTES} bytes; replace them"
                raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=component, file=name)
            if name in FILES:
                found[name] = _known(read_object(BytesIO(found[name]), path, component=component))
    return found | {_CONFIG: _known(config)}


def _known(settings: Mapping[str, Any]) -> bytes:
    return json.dumps(known_settings(settings)).encode()
