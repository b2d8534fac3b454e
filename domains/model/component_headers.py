"""The tensors of a component, from the headers of its files."""

from collections.abc import Sequence
from pathlib import Path

from domains.errors import DeviceOpsError
from domains.model.model import Model
from domains.model.safetensors_header import TensorEntry, header_of
from domains.model.weight_file import open_judged


def tensors_of(model: Model, component: str) -> Sequence[TensorEntry]:
    """The entries of all safetensors files of a component. Empty where they cannot be read."""
    paths = next((part.files for part in model.components if part.id == component), ())
    found: list[TensorEntry] = []
    try:
        for path in paths:
            if path.endswith(".safetensors"):
                with open_judged(model, path) as file:
                    found += header_of(file, Path(path)).tensors
    except (DeviceOpsError, OSError):
        return ()
    return found
