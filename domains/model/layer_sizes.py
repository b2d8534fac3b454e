"""Reads from the headers of a model's files how many weights each tensor of its denoiser has."""

from collections.abc import Mapping
from pathlib import Path

from domains.errors import DeviceOpsError
from domains.model.families import FAMILIES
from domains.model.model import Model
from domains.model.safetensors_header import header_of
from domains.model.weight_file import open_judged


class LayerSizes:
    """Remembers them: admission asks on the event loop."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Model, Mapping[str, int]]] = {}
        """By model; a scan that finds changes makes a new model object."""

    def counts(self, model: Model, component: str) -> Mapping[str, int]:
        """The numbers of weights by tensor, without a prefix; empty for other components than the denoiser, and where the
        files cannot be read."""
        family = FAMILIES.get(model.family)
        if family is None or component != family.denoiser.id:
            return {}
        known = self._known.get(model.id)
        if known is None or known[0] is not model:
            known = self._known[model.id] = model, _counts(model, component, family.denoiser.prefixes)
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
            return own
    return found
