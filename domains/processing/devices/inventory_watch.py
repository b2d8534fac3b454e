"""Looks at one backend, one look at a time; each caller gets a look that began after its call."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from domains.device.device import Backend, Device


class Inventory(Protocol):
    """Lists the devices of one backend without a worker."""

    @property
    def backend(self) -> Backend:
        """The backend of the listed devices."""
        ...

    async def look(self) -> Mapping[str, Device]:
        """Devices by worker name, as far as they are known without a worker. Raises DRIVER_ERROR."""
        ...


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Changes in one backend; ids of devices."""

    added: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()


class InventoryWatch:
    """Runs the looks at one backend. A hanging driver blocks no looks at other backends."""

    def __init__(self, inventory: Inventory, note: Callable[[Backend, Mapping[str, Device]], Found]) -> None:
        """`note` compares the listed devices with the known ones, and applies the changes."""
        self.backend = inventory.backend
        self._inventory = inventory
        self._note = note
        self._running: asyncio.Task[Found] | None = None
        self._next: asyncio.Task[Found] | None = None
        """Begins when the running look is over, for all callers that asked meanwhile."""

    async def look(self, timeout_s: float) -> Found:
        """Look, and return the changes. Raises `TimeoutError`, DRIVER_ERROR; a late look still applies its changes."""
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(self._fresh())

    def _fresh(self) -> asyncio.Task[Found]:
        if self._next is not None:
            return self._next
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._ask())
            return self._running
        # The running look may have passed the newest change already.
        self._next = asyncio.create_task(self._ask_after(self._running))
        return self._next

    async def _ask_after(self, running: asyncio.Task[Found]) -> Found:
        await asyncio.wait([running])
        self._running, self._next = self._next, None
        return await self._ask()

    async def _ask(self) -> Found:
        return self._note(self.backend, await self._inventory.look())
