"""Measures one pool: never twice at once, and never with a measurement that began before it was asked for."""

import asyncio
from collections.abc import Callable, Sequence

from domains.errors import DeviceOpsError, ErrorReason, Unavailable
from domains.memory.measure import MemoryMeasure
from domains.memory.pools.books import Books, Promise
from domains.memory.pools.pool import PoolSource

TIMEOUT_S = 5.0
"""A source that is silent for longer cannot be measured now. It has time to find that out by itself."""


class Gauge:
    """One source, and the measurement that is under way."""

    def __init__(self, source: PoolSource, books: Books, measured: Callable[[MemoryMeasure], None]) -> None:
        self.source = source
        self._books = books
        self._measured = measured
        self._saw_held = False
        self._running: asyncio.Task[MemoryMeasure] | None = None

    async def now(self) -> MemoryMeasure:
        """A measurement that began after this call. Raises the source's error; WORKER_RESTARTING if it is silent."""
        before = self._running
        if before is not None and not before.done():
            await asyncio.wait([before])
        if self._running is before:
            self._running = asyncio.create_task(self._measure(self._books.settling(self.source.pool_id)))
            self._running.add_done_callback(_look)
        assert self._running is not None
        # A caller that leaves must not end the measurement of the others.
        return await asyncio.shield(self._running)

    async def _measure(self, settled: Sequence[Promise]) -> MemoryMeasure:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                measure = await self.source.measure()
        except TimeoutError:
            message = f"memory pool {self.source.pool_id} did not answer within {TIMEOUT_S} s"
            raise Unavailable(message, ErrorReason.WORKER_RESTARTING, memory_pool_id=self.source.pool_id) from None
        self._saw_held = self._saw_held or measure.held_bytes is not None
        # One from outside (its worker is busy) has not seen what was allocated. Where nobody ever can, nobody is waited for.
        if measure.held_bytes is not None or not self._saw_held:
            self._books.measured(self.source.pool_id, measure.owners, settled)
        self._measured(measure)
        return measure


def _look(task: asyncio.Task[MemoryMeasure]) -> None:
    """Somebody has looked at the error, so that asyncio does not complain if every caller has left."""
    if not task.cancelled() and isinstance(task.exception(), DeviceOpsError):
        return
