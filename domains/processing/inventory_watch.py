"""Looks at one backend: one look at a time, and each caller is answered by one that began after the call."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from domains.device.device import Backend, Device


class Inventory(Protocol):
    """What one backend lists, without the help of a worker."""

    @property
    def backend(self) -> Backend:
        """Whose devices."""
        ...

    async def look(self) -> Mapping[str, Device]:
        """Devices by the names that workers are started with, as far as they are known without one. Raises DRIVER_ERROR."""
        ...


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What is other than before in one backend; ids."""

    added: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()


class InventoryWatch:
    """A driver that hangs holds up the looks at its own backend, and no thread or look of another."""

    def __init__(self, inventory: Inventory, note: Callable[[Backend, Mapping[str, Device]], Found]) -> None:
        """`note`: compares what is there with what was known, and acts on it."""
        self.backend = inventory.backend
        self._inventory = inventory
        self._note = note
        self._running: asyncio.Task[Found] | None = None
        self._next: asyncio.Task[Found] | None = None
        """Begins when the running one is over; for all who called meanwhile."""

    async def look(self, timeout_s: float) -> Found:
        """What is different. Raises `TimeoutError`, and DRIVER_ERROR; a look that is late still tells what it finds."""
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(self._fresh())

    def _fresh(self) -> asyncio.Task[Found]:
        if self._next is not None:
            return self._next
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._ask())
            return self._running
        # That one may be past what has just changed.
        self._next = asyncio.create_task(self._ask_after(self._running))
        return self._next

    async def _ask_after(self, running: asyncio.Task[Found]) -> Found:
        await asyncio.wait([running])
        self._running, self._next = self._next, None
        return await self._ask()

    async def _ask(self) -> Found:
        return self._note(self.backend, await self._inventory.look())
