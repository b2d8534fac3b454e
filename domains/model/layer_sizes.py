"""Reads from the headers of a model's files how many weights each tensor of its denoiser and text encoders has."""

from collections.abc import Mapping

from domains.model.component_headers import tensors_of
from domains.model.families import FAMILIES
from domains.model.kind import ModelKind
from domains.model.model import Model

_STREAMED = (ModelKind.DENOISER, ModelKind.TEXT_ENCODER)


def layer_counts(model: Model, component: str) -> Mapping[str, int]:
    """The numbers of weights by tensor, without a prefix; empty for other components than the denoiser and text encoders,
    and where the files cannot be read."""
    family = FAMILIES.get(model.family)
    part = None if family is None else family.part(component)
    if part is None or part.kind not in _STREAMED:
        return {}
    found = {one.name: one.elements for one in tensors_of(model, component)}
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
