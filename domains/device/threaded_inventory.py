"""Lists a driver's devices on a thread of its own; at most one request is in flight, however long the driver hangs."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import ClassVar

from domains.device.device import Backend, Device
from domains.device.driver_thread import DriverThread
from domains.errors import ErrorReason, InternalError

FIRST_LOOK_S = 10.0
"""How long a starting server waits for a driver: a driver that wakes many GPUs takes seconds."""


class ThreadedInventory(ABC):
    """Devices of one driver, by torch name."""

    backend: ClassVar[Backend]

    def __init__(self, driver_name: str, names: Sequence[str] | None) -> None:
        """`names`: only these; None: all."""
        self._names = None if names is None else frozenset(names)
        self._thread = DriverThread(driver_name)
        self._asked: Future[Mapping[str, Device]] | None = None

    def look_now(self, limit_s: float = FIRST_LOOK_S) -> Mapping[str, Device]:
        """The present devices. Blocks; DRIVER_ERROR after `limit_s`."""
        try:
            return self._ask().result(limit_s)
        except FutureTimeout:
            message = f"{self._thread.name} did not list its devices within {limit_s:g} s"
            raise InternalError(message, ErrorReason.DRIVER_ERROR) from None

    async def look(self) -> Mapping[str, Device]:
        """The present devices, without blocking the event loop and without a deadline."""
        return await asyncio.shield(asyncio.wrap_future(self._ask()))

    def close(self) -> None:
        """End the thread; a thread whose driver hangs ends with the process."""
        self._thread.stop()

    def _ask(self) -> "Future[Mapping[str, Device]]":
        if self._asked is None or self._asked.done():
            self._asked = self._thread.begin(self._wanted)
        return self._asked

    def _wanted(self) -> Mapping[str, Device]:
        found = self._list()
        return {name: one for name, one in found.items() if self._names is None or name in self._names}

    @abstractmethod
    def _list(self) -> Mapping[str, Device]:
        """Ask the driver, on its thread. Raises DRIVER_ERROR."""
