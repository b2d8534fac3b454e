"""Adapters of weights: LoRA and its relatives, as a detection."""

from collections.abc import Mapping

from domains.model.detect.evidence import MAX_KEYS, Detection, Evidence, Part, Source
from domains.model.detect.lora_base import bases
from domains.model.detect.lora_names import Adapter, read
from domains.model.families.sign import Tensors
from domains.model.kind import ModelKind


def lora(tensors: Tensors) -> Detection | None:
    """The adapter that these tensors are. None: they are something else."""
    adapter = read(tensors)
    if adapter is None:
        return None
    found = bases(adapter)
    families = next(iter(found)) if len(found) == 1 else ()
    return Detection(
        kind=ModelKind.LORA,
        # Families with the same layers are derived from the first one.
        family=families[0] if families else "",
        variant="" if adapter.algorithm == "lora" else adapter.algorithm,
        compatible=families,
        parts=(Part(id="lora", kind=ModelKind.LORA, architecture=adapter.algorithm),),
        evidence=(_names(adapter), *_layers(found)),
        notes=(_told(adapter),),
        warnings=_contradiction(found),
    )


def _names(adapter: Adapter) -> Evidence:
    return Evidence(
        kind=ModelKind.LORA,
        component="lora",
        source=Source.TENSOR_NAMES,
        expected=len(adapter.matched) + len(adapter.unexpected),
        matched=adapter.matched[:MAX_KEYS],
        missing=(),
        unexpected=adapter.unexpected[:MAX_KEYS],
        decisive=True,
    )


def _layers(found: Mapping[tuple[str, ...], list[str]]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(
            family=families[0],
            kind=ModelKind.LORA,
            component="lora",
            source=Source.TENSOR_SHAPES,
            expected=len(layers),
            matched=tuple(layers[:MAX_KEYS]),
            decisive=len(found) == 1,
        )
        for families, layers in found.items()
    )


def _told(adapter: Adapter) -> str:
    ranks = f", rank {', '.join(map(str, adapter.ranks[:8]))}" if adapter.ranks else ""
    layers = len(adapter.modules)
    return f"{adapter.algorithm} in the key format of {adapter.format}: {layers} layers{ranks}"


def _contradiction(found: Mapping[tuple[str, ...], list[str]]) -> tuple[str, ...]:
    if len(found) < 2:
        return ()
    names = " and ".join(families[0] for families in found)
    return (f"its layers fit {names}; an adapter has one base",)
