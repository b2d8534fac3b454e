"""A module of diffusers whose forward can be left between its blocks."""

from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from domains.inference.on_device.families.family import KeepOn, regardless


class _Look:
    """Called before each block of one module."""

    def __init__(self) -> None:
        self.keep_on: KeepOn = regardless

    def before(self, module: nn.Module, arguments: Any) -> None:
        """A forward hook of torch's."""
        self.keep_on()


_LOOKS: WeakKeyDictionary[nn.Module, _Look] = WeakKeyDictionary()
"""Modules outlive the families that compute with them: models share them, and the host tier keeps them."""


class WatchedModule:
    """Calls a module's own forward."""

    def __init__(self, module: nn.Module) -> None:
        """The members of the module's lists (`nn.ModuleList`) are its blocks."""
        self.module = module
        if module not in _LOOKS:
            look = _LOOKS[module] = _Look()
            for blocks in module.children():
                for block in blocks if isinstance(blocks, nn.ModuleList) else ():
                    block.register_forward_pre_hook(look.before)
        self._look = _LOOKS[module]

    def __call__(self, keep_on: KeepOn, *arguments: Any, **named: Any) -> Any:
        """The module's result. Raises what `keep_on` raises."""
        self._look.keep_on = keep_on
        try:
            keep_on()
            return self.module(*arguments, **named)
        finally:
            self._look.keep_on = regardless
