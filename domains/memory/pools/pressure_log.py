"""The last changes of pressure, and a wait for the next one."""

import asyncio
from collections import deque

from domains.memory.pools.pressure import PressureChange

KEPT = 1000


class PressureLog:
    """The changes in order. A reader keeps the sequence of the last change that it has read. One event loop."""

    def __init__(self) -> None:
        self._changes: deque[tuple[int, PressureChange]] = deque(maxlen=KEPT)
        self._waiting: set[asyncio.Future[None]] = set()
        self.last = 0
        """The sequence of the newest change. The first change has 1."""

    def add(self, change: PressureChange) -> None:
        """Add a change and wake the waiting readers."""
        self.last += 1
        self._changes.append((self.last, change))
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def after(self, sequence: int) -> list[PressureChange]:
        """The changes after `sequence`, in order."""
        return [change for number, change in self._changes if number > sequence]

    async def more(self, sequence: int, timeout_s: float) -> bool:
        """Wait for a change after `sequence`. False: none came within `timeout_s`."""
        if self.last > sequence:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=timeout_s)
            return waiter.done()
        finally:
            self._waiting.discard(waiter)
