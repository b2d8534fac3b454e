"""Measures one pool: never twice at once, and never with a measurement that began before the request for it."""

import asyncio
from collections.abc import Callable, Sequence

from domains.errors import ErrorReason, Unavailable
from domains.memory.measure import MemoryMeasure, not_told
from domains.memory.pools.claims import Claim, Claims
from domains.memory.pools.pool import PoolSource

TIMEOUT_S = 5.0
"""The longest time that a measurement may take. Sources have shorter limits of their own."""


class Gauge:
    """One source and its running measurement."""

    def __init__(self, source: PoolSource, claims: Claims, measured: Callable[[MemoryMeasure], None]) -> None:
        self.source = source
        self._claims = claims
        self._measured = measured
        self._saw_held = False
        self._running: asyncio.Task[MemoryMeasure] | None = None

    async def now(self) -> MemoryMeasure:
        """A measurement that began after this call. Raises the source's error, WORKER_RESTARTING after a time-out, or
        DRIVER_ERROR if the system refuses to tell."""
        before = self._running
        if before is not None and not before.done():
            await asyncio.wait([before])
        if self._running is before:
            self._running = asyncio.create_task(self._measure(self._claims.closed(self.source.pool_id)))
        assert self._running is not None
        # A cancelled caller must not cancel the measurement of the other callers.
        return await asyncio.shield(self._running)

    async def _measure(self, closed: Sequence[Claim]) -> MemoryMeasure:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                measure = await self.source.measure()
        except TimeoutError:
            message = f"memory pool {self.source.pool_id} did not answer within {TIMEOUT_S} s"
            raise Unavailable(message, ErrorReason.WORKER_RESTARTING, memory_pool_id=self.source.pool_id) from None
        except OSError as error:
            raise not_told(self.source.pool_id, error) from error
        self._saw_held = self._saw_held or measure.held_bytes is not None
        # A measurement without held bytes (the worker is busy) does not include what was allocated, so claims stay open.
        # A pool that never measures held bytes ends them all the same.
        if measure.held_bytes is not None or not self._saw_held:
            self._claims.measured(self.source.pool_id, measure.owners, closed)
        self._measured(measure)
        return measure
