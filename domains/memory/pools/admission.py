"""Admission: whoever is about to allocate asks first, so that budgets and reservations are obeyed."""

from domains.errors import InvalidRequest, Violation
from domains.memory.pools.books import Claim
from domains.memory.pools.ledger import Ledger
from domains.memory.pools.pool import no_room
from domains.memory.pools.pools import Pools
from domains.memory.pools.reservation import ReservationState


class Admission:
    """The door to allocating. One event loop."""

    def __init__(self, pools: Pools, ledger: Ledger) -> None:
        self._pools = pools
        self._ledger = ledger
        self._claims = 0

    async def admit(
        self,
        pool_name: str,
        need_bytes: int,
        reservation_id: str = "",
        consumer_id: str = "",
        *,
        keep_all: bool = False,
    ) -> Claim:
        """Claim bytes before allocating them; close the claim when they are allocated, or will not be.

        A reservation pays as far as it goes. What it kept beyond the need is free again, or with `keep_all` part of the
        claim. With a `consumer_id`, what that owner holds more than now counts against the claim already while it is open.
        Raises the pool's out-of-memory reason (`needed_bytes`: what the reservation does not pay), BUDGET_EXCEEDED, or
        what is wrong with the reservation. A pool that cannot be measured and has no limit admits everything: its
        allocator will tell.
        """
        pool_id = self._pools.get(pool_name).source.pool_id
        await self._pools.measure(pool_id)
        kept = self._kept_bytes(pool_id, reservation_id)
        self._check_free(pool_id, need_bytes - kept)
        if reservation_id:
            size = max(need_bytes, kept) if keep_all else need_bytes
            return self._ledger.commit(reservation_id, consumer_id, size)
        self._claims += 1
        books = self._pools.books
        promise = books.promise(f"claim-{self._claims}", pool_id, need_bytes)
        books.claim(promise, consumer_id)
        return Claim(books, promise)

    def is_held(self, reservation_id: str) -> bool:
        """Whether a reservation can still be used up."""
        reservation = self._ledger.find(reservation_id)
        return reservation is not None and reservation.state is ReservationState.HELD

    def _kept_bytes(self, pool_id: str, reservation_id: str) -> int:
        if not reservation_id:
            return 0
        reservation = self._ledger.find_held(reservation_id)
        if reservation.pool_id != pool_id:
            text = f"reservation {reservation_id} is in pool {reservation.pool_id}, not in {pool_id}"
            raise InvalidRequest([Violation(field="reservation_id", message=text)])
        return reservation.size_bytes

    def _check_free(self, pool_id: str, more_bytes: int) -> None:
        room, promised = self._pools.room(pool_id), self._pools.books.promised_bytes(pool_id)
        if more_bytes > 0 and room.free_bytes is not None and more_bytes > room.free_bytes - promised:
            raise no_room(self._pools.get(pool_id).source, room, promised, more_bytes)
