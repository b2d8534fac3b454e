"""The tensors of a model's components, from the headers of its files."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from domains.errors import DeviceOpsError
from domains.model.model import Model
from domains.model.safetensors_header import TensorEntry, header_of
from domains.model.weight_file import open_judged


def tensors_of(model: Model) -> Mapping[str, Sequence[TensorEntry]] | None:
    """The entries of all safetensors files of each component, by its id. None: a file cannot be read.

    Each file is read once: a single file holds all components, and a hostile header of 16 MiB takes half a second.
    """
    read: dict[str, Sequence[TensorEntry]] = {}
    try:
        for path in {path for part in model.components for path in part.files if path.endswith(".safetensors")}:
            with open_judged(model, path) as file:
                read[path] = header_of(file, Path(path)).tensors
    except (DeviceOpsError, OSError):
        return None
    return {
        part.id: [*chain.from_iterable(read[path] for path in part.files if path in read)] for part in model.components
    }
