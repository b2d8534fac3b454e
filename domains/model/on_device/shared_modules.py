"""Modules that are on a device already: models with the same component hold it once."""

import json
from collections.abc import Hashable, Mapping
from weakref import WeakValueDictionary

import torch
from torch import nn

from domains.model.component_config import read_config
from domains.model.model import FileStamp, Model
from domains.model.on_device.alike import Alike


class SharedModules:
    """Filled modules by their content. A module is here as long as a loaded model has it."""

    def __init__(self) -> None:
        self.alike = Alike()
        """The same modules by the bytes of their tensors."""
        self._modules: WeakValueDictionary[Hashable, nn.Module] = WeakValueDictionary()

    def find(self, keys: Mapping[str, Hashable | None]) -> dict[str, nn.Module]:
        """The modules that are here, by component. Those that a host tier keeps without their weights do not count."""
        found = {component: self._modules.get(key) for component, key in keys.items() if key is not None}
        return {component: module for component, module in found.items() if module is not None and _filled(module)}

    def put(self, key: Hashable | None, module: nn.Module) -> None:
        """Add a filled module. None: its content is not known."""
        if key is not None:
            self._modules[key] = module


def _filled(module: nn.Module) -> bool:
    return not any(parameter.is_meta for parameter in module.parameters())


def _content(stamp: FileStamp) -> str:
    return stamp.sha256 or (stamp.state and f"{stamp.real}|{stamp.state}")


def content_key(
    model: Model,
    component: str,
    weights: list[str],
    place: torch.device,
    dtype: torch.dtype,
    quantization: str = "",
) -> Hashable | None:
    """Equal for two components that are the same module with the same tensors; None: nothing tells the content
    of a file.

    The hash is that of the weight files: the same tensors in another file are found by `alike`. A file that was not
    hashed counts as the same as long as its place, size, times and inode are.
    """
    hashes = tuple(_content(model.stamp(path)) for path in weights)
    if not hashes or not all(hashes):
        return None
    return kind_of(model, component, place), hashes, dtype, quantization


def kind_of(model: Model, component: str, place: torch.device) -> Hashable:
    """Equal for two components that compute alike if their tensors are equal."""
    config = {name: value for name, value in read_config(model, component, "config.json").items() if name[0] not in "_"}
    return model.family, component, json.dumps(config, sort_keys=True), str(place)
