"""Reads the names of a LoRA's tensors, and the settings of peft."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition, excerpt
from domains.model.detect.lora_names import SUFFIX

_PATH = re.compile(r"[\w.-]+")
"""The path of a layer."""

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
    rows: tuple[int, int] | None = None
    """The rows of a Kronecker product that are the layer's. None: all, or the tensors hold these rows alone."""


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
    """The pattern's value for a layer, as by peft's `get_pattern_key`: a key stands for all layers whose path ends in it, or
    with `^` for one.

    Peft reads keys as regular expressions. Matching one from a file could take forever, so only paths are read. Raises
    MODEL_INCOMPATIBLE for other keys.
    """
    for key, value in (patterns or {}).items():
        layer = key.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not _PATH.fullmatch(layer):
            message = f"the LoRA's setting {excerpt(key)!r} stands for layers by a regular expression; name each layer"
            raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, setting=excerpt(key))
        if path == layer or (not key.startswith("^") and path.endswith(f".{layer}")):
            return value
    return otherwise
