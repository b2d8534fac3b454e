"""Reads the tensors of a LoRA's file into host memory."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition
from domains.model.detect.lora_names import SUFFIX
from domains.model.model import Model
from domains.model.on_device.weights import DTYPES
from domains.model.weight_file import WeightFile

_METADATA = "lora_adapter_metadata"
"""Entry of the metadata in which diffusers stores peft's settings, as a JSON object."""
_PART = {
    "lora_down": "down", "lora_A": "down", "lora.down": "down", "lora_linear_layer.down": "down",
    "lora_up": "up", "lora_B": "up", "lora.up": "up", "lora_linear_layer.up": "up",
    "lora_mid": "mid", "alpha": "alpha", "dora_scale": "lengths", "lora_magnitude_vector": "lengths",
}  # fmt: skip
"""Ends of names of LoRA and DoRA, in all formats; those of LoHa and LoKr are the same in all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoraModule:
    """The tensors for one layer."""

    parts: Mapping[str, Tensor]
    """`down`, `up`, `mid`, `alpha`, `lengths`, `hada_w1_a`, `lokr_w2` …"""
    names: tuple[str, ...]
    """Their names in the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoraFile:
    """A LoRA in host memory."""

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


def read_lora(model: Model) -> LoraFile:
    """Read a LoRA's file. Raises as `WeightFile`; MODEL_INCOMPATIBLE for a dtype that torch has not."""
    name = model.files[0].path
    with WeightFile(model, name) as file:
        for _ in file.checked():
            pass
        tensors = {entry.name: _read(model, file, entry) for entry in file.tensors.values()}
        settings = _settings(file.metadata)
        file.check_unchanged()
    return LoraFile(model_id=model.id, sha256=model.files[0].sha256, tensors=tensors, settings=settings)


def _read(model: Model, file: WeightFile, entry: Any) -> Tensor:
    dtype = torch.int64 if entry.dtype == "I64" else DTYPES.get(entry.dtype)
    if dtype is None:
        message = (
            f"the tensor {entry.name} of LoRA {model.id} is stored as {entry.dtype}, which this server cannot read"
        )
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


def modules_of(tensors: Mapping[str, Tensor]) -> tuple[dict[str, LoraModule], list[str]]:
    """The tensors by the stem of their names, one stem a layer; and the names that are none of an adapter's."""
    parts: dict[str, dict[str, Tensor]] = {}
    names: dict[str, list[str]] = {}
    others: list[str] = []
    for name, tensor in tensors.items():
        found = SUFFIX.search(name)
        if found is None:
            others.append(name)
            continue
        stem, what = name[: found.start()], found["what"]
        parts.setdefault(stem, {})[_PART.get(what, what)] = tensor
        names.setdefault(stem, []).append(name)
    modules = {stem: LoraModule(parts=some, names=tuple(names[stem])) for stem, some in parts.items()}
    return modules, others


def scale_by_settings(settings: Mapping[str, Any], component: str, path: str, rank: int) -> float:
    """The scale that peft's settings give a layer. 1 without settings: alpha is the rank."""
    own = {
        key.removeprefix(f"{component}."): value for key, value in settings.items() if key.startswith(f"{component}.")
    }
    if not own.get("r") and not own.get("rank_pattern"):
        return 1.0
    alpha = _pattern(own.get("alpha_pattern"), path, own.get("lora_alpha", rank))
    return float(alpha) / (rank**0.5 if own.get("use_rslora") else rank)


def _pattern(patterns: Any, path: str, otherwise: Any) -> Any:
    """As peft's `get_pattern_key`: a key stands for all layers whose path ends in it."""
    for key, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({key})", path):
            return value
    return otherwise
