"""Those who wait for room in a pool: the more urgent first, among equals the first come."""

import asyncio
from bisect import insort

from domains.memory.pools.reservation import Reservation, ReservationAsk


class Waiter:
    """One call that waits."""

    def __init__(self, ask: ReservationAsk, sequence: int) -> None:
        self.ask = ask
        self.sequence = sequence
        self.evicted_ids: list[str] = []
        """Of the loaded models that were unloaded for it while it waited."""
        self.granted: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the line."""
        return -self.ask.priority, self.sequence


class WaitingLine:
    """The line of one pool."""

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []
        self._last = 0

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def join(self, ask: ReservationAsk) -> Waiter:
        """Stand behind all that are as urgent."""
        self._last += 1
        waiter = Waiter(ask, self._last)
        insort(self._waiters, waiter, key=lambda each: each.place)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Wait no longer."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    @property
    def first(self) -> Waiter:
        """Whose turn it is."""
        return self._waiters[0]

    def before(self, ask: ReservationAsk) -> int:
        """How many of those who wait a newcomer must not overtake."""
        return sum(waiter.ask.priority >= ask.priority for waiter in self._waiters)

    def end(self, error: Exception) -> None:
        """Nobody here will get anything."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.granted.done():
                waiter.granted.set_exception(error)
