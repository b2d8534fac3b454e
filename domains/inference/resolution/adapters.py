"""Checks the LoRAs and textual inversions of a generation against its model."""

from collections.abc import Iterator, Sequence

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation, excerpt
from domains.inference.checks.named_models import check_named
from domains.inference.generation import Generation
from domains.inference.lora_blocks import blocks_of
from domains.inference.loras import Lora, ResolvedLora
from domains.inference.textual_inversions import ResolvedTextualInversion, TextualInversion
from domains.model.component_config import read_config
from domains.model.kind import ModelKind
from domains.model.model import Model

_DEFAULT_WEIGHT = 1.0
_SAID = {
    ModelKind.LORA: ("LoRA", "loras", "changes models of"),
    ModelKind.CONTROLNET: ("ControlNet", "controls", "guides models of"),
    ModelKind.T2I_ADAPTER: ("T2I adapter", "controls", "guides models of"),
    ModelKind.IMAGE_PROMPT_ADAPTER: ("IP-Adapter", "image_prompts", "is made for models of"),
    ModelKind.TEXTUAL_INVERSION: ("textual inversion", "textual_inversions", "is read by models of"),
}
"""By kind: its name for people, the field that names it, and what it does to its bases."""


def resolved_loras(asked: Sequence[Lora], model: Model, loras: Sequence[Model], field: str) -> tuple[ResolvedLora, ...]:
    """The LoRAs of a field with every choice made. `loras`: their entries in the catalogue.

    Raises MODEL_INCOMPATIBLE for an entry that is no LoRA or is of another family, naming both; INVALID_FIELD for a weight
    of a component that the model does not have, and for a wrong number of block weights.
    """
    for lora in loras:
        check_adapter(lora, model, ModelKind.LORA)
    wrong = [*_unknown_components(asked, model, field)] or [*_other_blocks(asked, model, field)]
    if wrong:
        raise InvalidRequest(wrong)
    return tuple(_resolved(lora, entry) for lora, entry in zip(asked, loras, strict=True))


def resolved_region_loras(
    asked: Generation, model: Model, loras: Sequence[Sequence[Model]]
) -> Sequence[tuple[ResolvedLora, ...]]:
    """The same for the LoRAs of each region. Empty `loras`: no region has some."""
    loras = loras or [()] * len(asked.regions)
    return [
        resolved_loras(region.loras, model, some, f"generation.regions[{place}].loras")
        for place, (region, some) in enumerate(zip(asked.regions, loras, strict=True))
    ]


def resolved_words(asked: Generation, model: Model, words: Sequence[Model]) -> tuple[ResolvedTextualInversion, ...]:
    """The textual inversions with every choice made. `words`: their entries in the catalogue.

    Raises MODEL_INCOMPATIBLE as `resolved_loras`; INVALID_FIELD where no word of the prompts stands for one, or one word
    for two.
    """
    for word in words:
        check_adapter(word, model, ModelKind.TEXTUAL_INVERSION)
    if wrong := [*_tokens(asked.textual_inversions, words)]:
        raise InvalidRequest(wrong)
    return tuple(_resolved_word(one, entry) for one, entry in zip(asked.textual_inversions, words, strict=True))


def check_adapter(adapter: Model, model: Model, kind: ModelKind) -> None:
    """Raise unless the catalogue's entry is of the kind, whole, and for models of this family."""
    name, field, does = _SAID[kind]
    facts = {f"{kind}_model_id": adapter.id, "model_id": model.id, "family": model.family}
    check_named(adapter, kind, name, field, facts)
    # If the file's tensor names do not show its base, the worker checks whether the tensors fit.
    if adapter.compatible_families and model.family not in adapter.compatible_families:
        fits = ", ".join(adapter.compatible_families)
        message = f"{name} {adapter.id} {does} {fits}; model {model.id} is of {model.family}: name one that fits"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts, compatible_families=fits)


def _unknown_components(loras: Sequence[Lora], model: Model, field: str) -> Iterator[Violation]:
    known = [component.id for component in model.components if component.parameter_count]
    for place, lora in enumerate(loras):
        for index, one in enumerate(lora.components):
            if one.component_id not in known:
                able = ", ".join(known)
                message = f"model {model.id} has no component {excerpt(one.component_id)!r}; it has {able}"
                path = f"{field}[{place}].component_weights[{index}].component_id"
                yield Violation(field=path, message=message, allowed=able)


def _other_blocks(loras: Sequence[Lora], model: Model, field: str) -> Iterator[Violation]:
    """Faults of block weights whose number differs from the component's number of blocks."""
    counts: dict[str, int] = {}
    for place, lora in enumerate(loras):
        for index, one in enumerate(lora.components):
            if not one.block_weights:
                continue
            if one.component_id not in counts:
                config = read_config(model, one.component_id, "config.json")
                counts[one.component_id] = len(blocks_of(model.family, one.component_id, config))
            if (count := counts[one.component_id]) != len(one.block_weights):
                message = (
                    f"has {len(one.block_weights)} weights; {one.component_id} of model {model.id} has {count} blocks"
                )
                path = f"{field}[{place}].component_weights[{index}].block_weights"
                yield Violation(field=path, message=message, allowed=f"{count} entries")


def _tokens(asked: Sequence[TextualInversion], words: Sequence[Model]) -> Iterator[Violation]:
    """Faults of the words that stand for textual inversions. Case does not count: text encoders read small letters."""
    known: dict[str, Model] = {}
    for place, (one, entry) in enumerate(zip(asked, words, strict=True)):
        path, token = f"generation.textual_inversions[{place}].token", one.token or entry.token
        if not token:
            message = f"the file of textual inversion {entry.id} names no word; say which word of the prompts means it"
            yield Violation(field=path, message=message)
        elif (other := known.get(token.casefold())) is not None:
            message = f"the word {token!r} stands for {other.id} and for {entry.id}; give each one a word of its own"
            yield Violation(field=path, message=message)
        known[token.casefold()] = entry


def _resolved(asked: Lora, entry: Model) -> ResolvedLora:
    weight = _DEFAULT_WEIGHT if asked.weight is None else asked.weight
    sha256 = entry.files[0].sha256
    return ResolvedLora(
        model_id=entry.id,
        model_sha256=sha256,
        weight=weight,
        components=asked.components,
        start_ratio=asked.start_ratio or 0.0,
        end_ratio=1.0 if asked.end_ratio is None else asked.end_ratio,
    )


def _resolved_word(asked: TextualInversion, entry: Model) -> ResolvedTextualInversion:
    return ResolvedTextualInversion(
        model_id=entry.id,
        model_sha256=entry.files[0].sha256,
        token=asked.token or entry.token,
        weight=_DEFAULT_WEIGHT if asked.weight is None else asked.weight,
    )
