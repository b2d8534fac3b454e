"""Blocks without weights and hooks, from which code is made for all blocks of their kind."""

import copy
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import nn

_HOOKS = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, OrderedDict))
"""Names of the tables of a module's hooks."""
_PLAIN = (bool, int, float, str, type(None), torch.dtype)


def kind_of(block: nn.Module) -> Hashable:
    """Equal for blocks that compute alike but for their weights: in their classes, tensors and settings."""
    return tuple((name, type(module), _tensors(module), _settings(module)) for name, module in block.named_modules())


def twin_of(block: nn.Module) -> nn.Module:
    """A copy of a block on `meta`, without hooks."""
    known: dict[int, Any] = {}
    for module in block.modules():
        for name in _HOOKS:
            known[id(getattr(module, name))] = OrderedDict()
        for tensor in (*_own(module._parameters), *_own(module._buffers)):  # pyright: ignore[reportPrivateUsage]
            empty = torch.empty_like(tensor, device="meta")
            parameter = isinstance(tensor, nn.Parameter)
            known[id(tensor)] = nn.Parameter(empty, requires_grad=False) if parameter else empty
    if "forward" in vars(block):
        # It leads to all of the model, and is taken out below.
        known[id(vars(block)["forward"])] = len
    twin = copy.deepcopy(block, known)
    twin.__dict__.pop("forward", None)
    return twin


def _own(tensors: Mapping[str, torch.Tensor | None]) -> list[torch.Tensor]:
    return [one for one in tensors.values() if one is not None]


def _tensors(module: nn.Module) -> Hashable:
    """Names, shapes and dtypes of a module's own parameters and buffers."""
    both = {**module._parameters, **module._buffers}  # pyright: ignore[reportPrivateUsage]
    return tuple((name, one if one is None else (tuple(one.shape), one.dtype)) for name, one in both.items())


def _settings(module: nn.Module) -> Hashable:
    """Plain values of a module's own attributes, and the classes of the others."""
    told = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "forward"}
    return tuple((name, _setting(value)) for name, value in told.items())


def _setting(value: object) -> Hashable:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, tuple | list):
        return tuple(_setting(one) for one in value)  # pyright: ignore[reportUnknownVariableType]
    return type(value)
