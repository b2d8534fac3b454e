"""Finds the layers of a transformer for LoHa, LoKr and DoRA in other formats, whose tensors diffusers drops.

A LoRA of rank 1, which diffusers converts, stands in for each layer of the file: `down` holds the layer's number, `up` the
numbers of its rows. So the converted tensors tell which rows of which layer of the file belong to a layer of the model.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from domains.inference.on_device.adapters.lora_conversion import NotConverted, converted, is_own
from domains.inference.on_device.adapters.lora_names import kohya_name
from domains.inference.on_device.adapters.lora_parts import LoraModule, modules_of
from domains.model.detect.lora_names import SUFFIX

_DROPPED = ("dora_scale", "hada_", "lokr_", "lora_mid")
"""Parts of names that the conversions drop, or do not know."""
_UNDERSCORED = re.compile("^(lycoris_|lora_transformer_|lora_unet_)")
"""LyCORIS and kohya write paths of modules so, with underscores for dots."""
_BY_ROWS = ("up", "hada_w1_a", "hada_w2_a", "lengths")
"""Matrices whose rows are those of the layer. A core (`hada_t1`) mixes them: it belongs to convolutions."""


class _Place(NamedTuple):
    """What stands at a layer of the model: rows of a layer of the file."""

    stem: str
    begin: int
    end: int


def with_own_names(tensors: Mapping[str, Tensor], transformer: nn.Module) -> Mapping[str, Tensor]:
    """The tensors; those whose names are the paths of the model's own modules with underscores get these paths."""
    paths = {path.replace(".", "_"): path for path, _ in transformer.named_modules() if path}
    return {_own_name(name, paths): tensor for name, tensor in tensors.items()}


def _own_name(name: str, paths: Mapping[str, str]) -> str:
    end = SUFFIX.search(name)
    stem = name[: end.start()] if end else name
    path = paths.get(_UNDERSCORED.sub("", stem)) if _UNDERSCORED.match(stem) else None
    return name if path is None else f"transformer.{path}{name[len(stem) :]}"


def needs_standing(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the conversion of tensors would lose some."""
    return any(part in name for name in tensors if not is_own(name) for part in _DROPPED)


def standing(tensors: Mapping[str, Tensor], family: str) -> tuple[dict[str, LoraModule], list[str]]:
    """The modules under diffusers' names, each with its rows; and the names that are none of an adapter's.

    Raises NotConverted.
    """
    modules, others = modules_of(tensors)
    found = {stem: module for stem, module in modules.items() if is_own(stem)}
    # A lone alpha belongs to a layer that the training left out.
    foreign = {stem: one for stem, one in modules.items() if stem not in found and set(one.parts) - {"alpha"}}
    placed = _placed(foreign, family)
    if unknown := foreign.keys() - {place.stem for place in placed.values()}:
        names = [name for stem in foreign if stem in unknown for name in foreign[stem].names]
        raise NotConverted(names, "diffusers does not convert their names")
    return {**found, **{path: _of_rows(foreign[place.stem], place) for path, place in placed.items()}}, others


def _placed(modules: Mapping[str, LoraModule], family: str) -> Mapping[str, _Place]:
    """By layer of the model."""
    stems, stand = list(modules), dict[str, Tensor]()
    for number, stem in enumerate(stems):
        name = kohya_name(stem) or stem
        stand[f"{name}.lora_down.weight"] = torch.full((1, 1), float(number))
        stand[f"{name}.lora_up.weight"] = torch.arange(1.0, _height(modules[stem]) + 1)[:, None]
    found = converted(stand, family) if stand else {}
    placed: dict[str, _Place] = {}
    for path in [name.removesuffix(".lora_B.weight") for name in found if name.endswith(".lora_B.weight")]:
        stem = stems[int(found[f"{path}.lora_A.weight"].item())]
        placed[path] = _Place(stem, *_rows(found[f"{path}.lora_B.weight"].flatten(), modules[stem].names))
    return placed


def _rows(numbers: Tensor, names: Sequence[str]) -> tuple[int, int]:
    begin = int(numbers[0].item()) - 1
    end = begin + len(numbers)
    if not torch.equal(numbers, torch.arange(begin + 1.0, end + 1)):
        raise NotConverted([*names], "the model has their rows in another order, which this server cannot apply")
    return begin, end


def _height(module: LoraModule) -> int:
    """Number of rows of the whole difference."""
    whole = next((module.parts[name] for name in ("up", "hada_w1_a") if name in module.parts), None)
    if whole is not None:
        return whole.shape[0]
    names = [name for one in (1, 2) for name in (f"lokr_w{one}", f"lokr_w{one}_a") if name in module.parts]
    if len(names) != 2:
        raise NotConverted([*module.names], "they lack a matrix")
    return module.parts[names[0]].shape[0] * module.parts[names[1]].shape[0]


def _of_rows(module: LoraModule, place: _Place) -> LoraModule:
    """The module with these rows alone."""
    rows = place.begin, place.end
    if rows == (0, _height(module)):
        return module
    parts = {name: part[slice(*rows)] if name in _BY_ROWS else part for name, part in module.parts.items()}
    return LoraModule(parts=parts, names=module.names, rows=rows if any("lokr" in name for name in parts) else None)
