"""Reads from the headers of a model's files how many weights each tensor of its denoiser and text encoders has."""

from collections.abc import Mapping
from pathlib import Path

from domains.errors import DeviceOpsError
from domains.model.families import FAMILIES
from domains.model.kind import ModelKind
from domains.model.model import Model
from domains.model.safetensors_header import header_of
from domains.model.weight_file import open_judged

_STREAMED = (ModelKind.DENOISER, ModelKind.TEXT_ENCODER)


class LayerSizes:
    """Remembers them: admission asks on the event loop."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Model, Mapping[str, int]]] = {}
        """By model and component; a scan that finds changes makes a new model object."""

    def counts(self, model: Model, component: str) -> Mapping[str, int]:
        """The numbers of weights by tensor, without a prefix; empty for other components than the denoiser and text
        encoders, and where the files cannot be read."""
        family = FAMILIES.get(model.family)
        part = None if family is None else family.part(component)
        if part is None or part.kind not in _STREAMED:
            return {}
        known = self._known.get((model.id, component))
        if known is None or known[0] is not model:
            known = self._known[model.id, component] = model, _counts(model, component, part.prefixes)
        return known[1]


def _counts(model: Model, component: str, prefixes: tuple[str, ...]) -> Mapping[str, int]:
    paths = next((part.files for part in model.components if part.id == component), ())
    found: dict[str, int] = {}
    try:
        for path in paths:
            if path.endswith(".safetensors"):
                with open_judged(model, path) as file:
                    found |= {one.name: one.elements for one in header_of(file, Path(path)).tensors}
    except (DeviceOpsError, OSError):
        return {}
    for prefix in prefixes:
        # A single file has other components too.
        if own := {name.removeprefix(prefix): size for name, size in found.items() if name.startswith(prefix)}:
            return _once(own)
    return _once(found)


def _once(counts: dict[str, int]) -> Mapping[str, int]:
    """Without T5's second name of one tensor, which the published files hold twice and the device once."""
    if "encoder.embed_tokens.weight" in counts:
        counts.pop("shared.weight", None)
    return counts
