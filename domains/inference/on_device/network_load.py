"""A network that jobs share beside their model: on its way to the device, or there."""

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import torch
from torch import nn

from domains.model.model import Model
from domains.model.on_device import Ready

View = TypeVar("View")

_TURN_S = 0.01
"""Seconds that a load may use the computing thread before other jobs have their turn."""


class NetworkLoad:
    """A network on its way, then ready. All jobs that need it share one object."""

    def __init__(self, model: Model, steps: Generator[Ready, None, nn.Module]) -> None:
        self.model = model
        self.users: set[str] = set()
        """Names of those that need it."""
        self.module: nn.Module | None = None
        """None: it is not there yet."""
        self.failure: Exception | None = None
        """Why the load has ended. None: it has not failed."""
        self.size_bytes = 0
        self._view: Any = None
        self._steps = steps
        self._ready: Ready | None = None

    @property
    def ready(self) -> bool:
        """Whether `advance` has something to do."""
        return self.module is not None or self.failure is not None or self._ready is None or self._ready.passed()

    def wait(self) -> None:
        """Wait until the next piece can be loaded, or at least for a while."""
        if self._ready is not None:
            self._ready.wait()

    def view(self, make: Callable[[nn.Module], View]) -> View:
        """What computes with the network: made for its first user, and the same for all."""
        assert self.module is not None, "`advance` has loaded it"
        if self._view is None:
            self._view = make(self.module)
        return self._view

    def advance(self) -> bool:
        """Load what is ready, but not for longer than a turn. Returns whether the network is there. Raises as its load, for
        every job that asks."""
        if self.failure is not None:
            raise self.failure
        try:
            self._advance(time.perf_counter() + _TURN_S)
        except Exception as error:
            self.failure = error
            raise
        return self.module is not None

    def _advance(self, until_s: float) -> None:
        # Weights that are made in inference mode could never be changed outside of it.
        with torch.inference_mode(mode=False), torch.no_grad():
            while self.module is None and self.ready:
                try:
                    self._ready = next(self._steps)
                except StopIteration as end:
                    self._take(end.value)
                if time.perf_counter() >= until_s:
                    return

    def _take(self, module: nn.Module) -> None:
        self.module = module
        self.size_bytes = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))

    def close(self) -> None:
        """Cancel the load, or drop the network."""
        self._steps.close()
        module, self.module, self._view = self.module, None, None
        if module is not None:
            # Modules refer to themselves, so their memory would be kept until the next garbage collection.
            module.to("meta")
