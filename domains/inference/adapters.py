"""Checks the LoRAs of a generation against its model."""

from collections.abc import Iterator, Sequence

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.inference.generation import Generation, Lora, ResolvedLora
from domains.model.kind import ModelKind
from domains.model.model import Model, ModelState

_DEFAULT_WEIGHT = 1.0


def resolved_loras(asked: Generation, model: Model, loras: Sequence[Model]) -> tuple[ResolvedLora, ...]:
    """The LoRAs with every choice made. `loras`: their entries in the catalogue.

    Raises MODEL_INCOMPATIBLE for one that is none, or is of another family, naming both; INVALID_FIELD for a weight of a
    component that the model has not.
    """
    for lora in loras:
        _check(lora, model)
    if wrong := [*_unknown_components(asked.loras, model)]:
        raise InvalidRequest(wrong)
    return tuple(_resolved(lora, entry) for lora, entry in zip(asked.loras, loras, strict=True))


def _check(lora: Model, model: Model) -> None:
    facts = {"lora_model_id": lora.id, "model_id": model.id, "family": model.family}
    if lora.kind is not ModelKind.LORA:
        what = str(lora.kind).replace("_", " ")
        message = f"model {lora.id} is a {what} and no LoRA; name a LoRA in `loras`"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts)
    if lora.state is not ModelState.AVAILABLE:
        message = f"LoRA {lora.id} cannot be used: {lora.problem}; scan again when its file is whole"
        raise FailedPrecondition(message, lora.fault, **facts)
    # Where its names do not tell its base, the worker finds whether its tensors fit.
    if lora.compatible_families and model.family not in lora.compatible_families:
        fits = ", ".join(lora.compatible_families)
        message = f"LoRA {lora.id} changes models of {fits}; model {model.id} is of {model.family}: name one that fits"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts, compatible_families=fits)


def _unknown_components(loras: Sequence[Lora], model: Model) -> Iterator[Violation]:
    known = [component.id for component in model.components if component.parameter_count]
    for place, lora in enumerate(loras):
        for index, one in enumerate(lora.components):
            if one.component_id not in known:
                able = ", ".join(known)
                message = f"model {model.id} has no component {one.component_id[:128]!r}; it has {able}"
                path = f"generation.loras[{place}].component_weights[{index}].component_id"
                yield Violation(field=path, message=message, allowed=able)


def _resolved(asked: Lora, entry: Model) -> ResolvedLora:
    weight = _DEFAULT_WEIGHT if asked.weight is None else asked.weight
    sha256 = entry.files[0].sha256
    return ResolvedLora(model_id=entry.id, model_sha256=sha256, weight=weight, components=asked.components)
