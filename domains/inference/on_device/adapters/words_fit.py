"""Fits textual inversions to the text encoders of a loaded model. What does not fit is refused by name, before any step."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.inference.on_device.adapters.adapter_file import AdapterFile
from domains.inference.on_device.adapters.learned_words import LearnedWords
from domains.inference.on_device.to_device import to_device
from domains.inference.textual_inversions import ResolvedTextualInversion
from domains.model.families import FAMILIES
from domains.model.on_device import OnDeviceModel


class Named(NamedTuple):
    """A textual inversion of a request, with its file."""

    word: ResolvedTextualInversion
    file: AdapterFile


def fit_words(named: Sequence[Named], loaded: OnDeviceModel) -> Mapping[nn.Module, LearnedWords]:
    """The words by the token embedding that reads them.

    Raises MODEL_INCOMPATIBLE, naming the textual inversion, the model and both widths; INVALID_FIELD for a word that the
    vocabulary has already.
    """
    parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for place, one in enumerate(named):
        for tensor, component in FAMILIES[loaded.family].learned_words.items():
            check_new(place, one.word.token, loaded.tokenizers[component])
            parts[component][one.word.token.lower()] = _vectors(one, tensor, component, loaded)
    return {_embedding(loaded, component): _joined(words, loaded, component) for component, words in parts.items()}


def _embedding(loaded: OnDeviceModel, component: str) -> nn.Embedding:
    encoder: Any = loaded.modules[component]
    return encoder.get_input_embeddings()


def check_new(place: int, token: str, tokenizer: Any) -> None:
    """Raise INVALID_FIELD for a word that the tokenizer's vocabulary has already. `place`: of the textual inversion."""
    # CLIP marks the end of a word in its vocabulary, and reads small letters.
    forms = {form for text in (token, token.lower()) for form in (text, f"{text}</w>")}
    # The whole vocabulary as a dictionary would take 20 ms.
    ids = {form: tokenizer.convert_tokens_to_ids(form) for form in forms}
    if taken := sorted(form for form, known in ids.items() if tokenizer.convert_ids_to_tokens(known) == form):
        message = (
            f"{token!r} is a word of the model's own vocabulary ({taken[0]}); give the textual inversion another one"
        )
        raise InvalidRequest([Violation(field=f"generation.textual_inversions[{place}].token", message=message)])


def vectors_of(file: AdapterFile, name: str) -> Tensor | None:
    """(vectors, width) of a learned word. `name`: of the tensor; empty: the only one. None: there is no such tensor."""
    tensors = file.tensors
    vectors = tensors.get(name) if name else next(iter(tensors.values())) if len(tensors) == 1 else None
    return vectors if vectors is None or vectors.dim() == 2 else vectors[None]


def _vectors(one: Named, name: str, component: str, loaded: OnDeviceModel) -> Tensor:
    """(vectors, width), in host memory."""
    tensors, vectors = one.file.tensors, vectors_of(one.file, name)
    if vectors is None:
        _refuse(
            one, loaded, f"it has no tensor {name or 'that stands alone'} for {component}, but {', '.join(tensors)}"
        )
    width = _embedding(loaded, component).weight.shape[1]
    if vectors.shape[-1] != width:
        _refuse(one, loaded, f"its vectors for {component} have {vectors.shape[-1]} values, the model's words {width}")
    return vectors.float() * one.word.weight


def _joined(words: Mapping[str, Tensor], loaded: OnDeviceModel, component: str) -> LearnedWords:
    dtype = _embedding(loaded, component).weight.dtype
    rows: dict[str, range] = {}
    begin = 0
    for word, vectors in words.items():
        rows[word] = range(begin, begin + len(vectors))
        begin += len(vectors)
    return LearnedWords(rows=rows, vectors=to_device(torch.cat([*words.values()]), loaded.device).to(dtype))


def _refuse(one: Named, loaded: OnDeviceModel, why: str) -> NoReturn:
    model, word = loaded.model, one.word
    message = f"textual inversion {word.model_id} does not fit model {model.id} of the family {model.family}: {why}"
    facts = {"textual_inversion_model_id": word.model_id, "model_id": model.id}
    raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)
