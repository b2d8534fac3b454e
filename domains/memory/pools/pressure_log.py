"""The last changes of pressure, and the wake-up of those who wait for one."""

import asyncio
from collections import deque

from domains.memory.pools.pressure import PressureChange

KEPT = 1000


class PressureLog:
    """Changes in order; a reader is only a position. One event loop."""

    def __init__(self) -> None:
        self._changes: deque[tuple[int, PressureChange]] = deque(maxlen=KEPT)
        self._waiting: set[asyncio.Future[None]] = set()
        self.last = 0
        """The sequence of the newest change, from 1."""

    def add(self, change: PressureChange) -> None:
        """It has just happened."""
        self.last += 1
        self._changes.append((self.last, change))
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def after(self, sequence: int) -> list[PressureChange]:
        """What a reader at `sequence` has not seen, in order."""
        return [change for number, change in self._changes if number > sequence]

    async def more(self, sequence: int, timeout_s: float) -> bool:
        """Wait for a change after `sequence`. False: none came within `timeout_s`."""
        if self.last > sequence:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=max(0.0, timeout_s))
            return waiter.done()
        finally:
            self._waiting.discard(waiter)
