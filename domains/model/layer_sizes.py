"""Finds the tensors of a denoiser or a text encoder by the headers of its files, and tells how many weights each has."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from domains.model.families import FAMILIES, Part
from domains.model.kind import ModelKind
from domains.model.safetensors_header import TensorEntry

_STREAMED = (ModelKind.DENOISER, ModelKind.TEXT_ENCODER)


def layer_counts(family: str, component: str, tensors: Iterable[TensorEntry]) -> Mapping[str, int]:
    """The numbers of weights by tensor, without a prefix; empty for other components than the denoiser and text encoders.

    `tensors`: of the component's files.
    """
    part = _part(family, component)
    if part is None or part.kind not in _STREAMED:
        return {}
    return _once({one.name: one.elements for one in _own(part, tensors)})


def denoiser_tensors(family: str, component: str, tensors: Iterable[TensorEntry]) -> Sequence[TensorEntry]:
    """The tensors of a denoiser, without a prefix; empty for other components. `tensors`: of the component's files."""
    part = _part(family, component)
    return () if part is None or part.kind is not ModelKind.DENOISER else _own(part, tensors)


def _part(family: str, component: str) -> Part | None:
    facts = FAMILIES.get(family)
    return None if facts is None else facts.part(component)


def _own(part: Part, tensors: Iterable[TensorEntry]) -> Sequence[TensorEntry]:
    """The tensors of a component, without a prefix."""
    found = list(tensors)
    for prefix in part.prefixes:
        # A single file has other components too.
        if own := [one for one in found if one.name.startswith(prefix)]:
            return [msgspec.structs.replace(one, name=one.name.removeprefix(prefix)) for one in own]
    return found


def _once(counts: dict[str, int]) -> Mapping[str, int]:
    """Without T5's second name of one tensor, which the published files hold twice and the device once."""
    if "encoder.embed_tokens.weight" in counts:
        counts.pop("shared.weight", None)
    return counts
