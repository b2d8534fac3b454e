"""Tells how many weights each tensor of a model's denoiser and text encoders has, by the headers of its files."""

from collections.abc import Iterable, Mapping

from domains.model.families import FAMILIES
from domains.model.kind import ModelKind
from domains.model.safetensors_header import TensorEntry

_STREAMED = (ModelKind.DENOISER, ModelKind.TEXT_ENCODER)


def layer_counts(family: str, component: str, tensors: Iterable[TensorEntry]) -> Mapping[str, int]:
    """The numbers of weights by tensor, without a prefix; empty for other components than the denoiser and text encoders.

    `tensors`: of the component's files.
    """
    facts = FAMILIES.get(family)
    part = None if facts is None else facts.part(component)
    if part is None or part.kind not in _STREAMED:
        return {}
    found = {one.name: one.elements for one in tensors}
    for prefix in part.prefixes:
        # A single file has other components too.
        if own := {name.removeprefix(prefix): size for name, size in found.items() if name.startswith(prefix)}:
            return _once(own)
    return _once(found)


def _once(counts: dict[str, int]) -> Mapping[str, int]:
    """Without T5's second name of one tensor, which the published files hold twice and the device once."""
    if "encoder.embed_tokens.weight" in counts:
        counts.pop("shared.weight", None)
    return counts
