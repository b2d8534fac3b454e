"""The requests that wait for room in one pool: by priority, then by arrival."""

import asyncio
import itertools
from bisect import insort

from domains.memory.pools.reservation import Reservation, ReservationAsk


class Waiter:
    """One request that waits."""

    def __init__(self, ask: ReservationAsk, sequence: int) -> None:
        self.ask = ask
        self.sequence = sequence
        self.evicted_ids: list[str] = []
        """Ids of the loaded models that were unloaded for the request while it waited."""
        self.granted: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()

    @property
    def place(self) -> tuple[int, int]:
        """The sort key in the line."""
        return -self.ask.priority, self.sequence


class WaitingLine:
    """The line of one pool."""

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []
        self._sequence = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def join(self, ask: ReservationAsk) -> Waiter:
        """Add a request behind all of the same or a higher priority."""
        waiter = Waiter(ask, next(self._sequence))
        insort(self._waiters, waiter, key=lambda each: each.place)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Remove a request that waits no longer."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    @property
    def first(self) -> Waiter:
        """The request that is served next."""
        return self._waiters[0]

    def before(self, ask: ReservationAsk) -> int:
        """How many waiting requests a new one must not overtake."""
        return sum(waiter.ask.priority >= ask.priority for waiter in self._waiters)

    def end(self, error: Exception) -> None:
        """Fail all waiting requests."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.granted.done():
                waiter.granted.set_exception(error)
