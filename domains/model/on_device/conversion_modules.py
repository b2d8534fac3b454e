"""A component of a single file under the names that a folder in the diffusers layout has."""

from collections.abc import Sequence

import torch
from torch import nn

from domains.model.model import Model
from domains.model.on_device.components import BUILDERS, build
from domains.model.on_device.derived import derived_parameters
from domains.model.on_device.rewrite import LIBRARY_FILE, NewTensor, Stored, stored_as
from domains.model.on_device.single_file import finder
from domains.model.on_device.weights import plan
from domains.model.weight_file import WeightFile


def tensors_of_module(
    model: Model, component: str, files: Sequence[WeightFile], precision: str
) -> tuple[str, list[NewTensor]]:
    """The name of its file without the ending, and its tensors. `precision` empty: as they are.

    Raises COMPONENT_MISSING, MODEL_CORRUPT, MODEL_INCOMPATIBLE.
    """
    builder = BUILDERS[model.family][component]
    module = build(model, component, builder, sum(len(file.tensors) for file in files))
    slots = plan(
        module, component, files, torch.float32, torch.contiguous_format, finder(model.family, component, module)
    )
    tensors = [
        NewTensor(
            name=_published(module, slot.name),
            shape=tuple(slot.shape),
            dtype=stored_as(slot.entry, precision),
            source=Stored(slot.file, slot.entry, slot.pieces),
        )
        for slot in slots
    ]
    tensors += _derived(module, {slot.name for slot in slots}, tensors[0].dtype)
    return LIBRARY_FILE if hasattr(type(module), "from_config") else "model", tensors


def _derived(module: nn.Module, there: set[str], dtype: str) -> list[NewTensor]:
    """Parameters that a single file leaves out, and a folder has."""
    return [
        NewTensor(name=_published(module, name), shape=tuple(value.shape), dtype=dtype, source=value)
        for name, value in derived_parameters(module).items()
        if name not in there
    ]


def _published(module: nn.Module, name: str) -> str:
    """The name that published files give to a tensor, where transformers 5 has another one in the module."""
    kind = type(module).__name__
    if kind.startswith("CLIPText") and not name.startswith(("text_model.", "text_projection.")):
        return f"text_model.{name}"
    return "shared.weight" if kind.endswith("T5EncoderModel") and name == "encoder.embed_tokens.weight" else name
