"""Reads the tensors of a LoRA's or a textual inversion's file into host memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition
from domains.model.model import Model
from domains.model.on_device.weights import DTYPES
from domains.model.weight_file import WeightFile

_METADATA = "lora_adapter_metadata"
"""Entry of the metadata in which diffusers stores peft's settings, as a JSON object."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AdapterFile:
    """An adapter in host memory."""

    model_id: str
    sha256: str
    tensors: Mapping[str, Tensor]
    """By name in the file."""
    settings: Mapping[str, Any]
    """peft's settings, by `component.name`. Empty: the file has none."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def read_adapter(model: Model) -> AdapterFile:
    """Read an adapter's file. Raises as `WeightFile`; MODEL_INCOMPATIBLE for a dtype that torch has not."""
    name = model.files[0].path
    with WeightFile(model, name) as file:
        for _ in file.checked():
            pass
        tensors = {entry.name: _read(model, file, entry) for entry in file.tensors.values()}
        settings = _settings(file.metadata)
        file.check_unchanged()
    return AdapterFile(model_id=model.id, sha256=model.files[0].sha256, tensors=tensors, settings=settings)


def _read(model: Model, file: WeightFile, entry: Any) -> Tensor:
    dtype = torch.int64 if entry.dtype == "I64" else DTYPES.get(entry.dtype)
    if dtype is None:
        message = f"the tensor {entry.name} of {model.id} is stored as {entry.dtype}, which this server cannot read"
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, model_id=model.id, tensor=entry.name)
    memory = torch.empty(entry.end - entry.begin, dtype=torch.uint8)
    if memory.numel():
        file.read_at(file.place_of(entry), memory.numpy().data)
    return memory.view(dtype).view(entry.shape)


def _settings(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    text = metadata.get(_METADATA, "")
    try:
        return msgspec.json.decode(text, type=dict[str, Any]) if text else {}
    except msgspec.DecodeError:
        return {}
