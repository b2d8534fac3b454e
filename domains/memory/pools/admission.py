"""Admission: a consumer claims memory before it allocates, so that budgets and reservations hold."""

from domains.errors import InvalidRequest, Violation
from domains.memory.pools.claims import Claim
from domains.memory.pools.pool import no_room
from domains.memory.pools.pools import Pools
from domains.memory.pools.reservations import Reservations


class Admission:
    """Gives claims to consumers. One event loop."""

    def __init__(self, pools: Pools, reservations: Reservations) -> None:
        self._pools = pools
        self._reservations = reservations

    async def admit(
        self,
        pool_name: str,
        need_bytes: int,
        reservation_id: str = "",
        consumer_id: str = "",
        *,
        keep_all: bool = False,
    ) -> Claim:
        """Claim bytes before they are allocated. The caller closes the claim when they are allocated, or will not be.

        A reservation pays as far as it goes. Its bytes beyond the need are free again, or with `keep_all` part of the
        claim. With a `consumer_id`, bytes that this owner allocates while the claim is open no longer count in the claim.
        Raises the pool's out-of-memory reason (`needed_bytes`: the bytes that the reservation does not pay),
        BUDGET_EXCEEDED, or the error of the reservation. A pool that cannot be measured and has no limit admits every
        consumer: its allocator refuses.
        """
        pool_id = self._pools.get(pool_name).source.pool_id
        await self._pools.measure(pool_id)
        reserved = self._reserved_bytes(pool_id, reservation_id)
        self._check_free(pool_id, need_bytes - reserved)
        if reservation_id:
            size = max(need_bytes, reserved) if keep_all else need_bytes
            return self._reservations.commit(reservation_id, consumer_id, size)
        return self._pools.claims.take_new(pool_id, need_bytes, consumer_id)

    def is_held(self, reservation_id: str) -> bool:
        """Whether a reservation can still pay for a claim."""
        return self._reservations.is_held(reservation_id)

    def _reserved_bytes(self, pool_id: str, reservation_id: str) -> int:
        if not reservation_id:
            return 0
        reservation = self._reservations.find_held(reservation_id)
        if reservation.pool_id != pool_id:
            text = f"reservation {reservation_id} is in pool {reservation.pool_id}, not in {pool_id}"
            raise InvalidRequest([Violation(field="reservation_id", message=text)])
        return reservation.size_bytes

    def _check_free(self, pool_id: str, more_bytes: int) -> None:
        room, outstanding = self._pools.room(pool_id), self._pools.claims.outstanding_bytes(pool_id)
        if more_bytes > 0 and room.free_bytes is not None and more_bytes > room.free_bytes - outstanding:
            raise no_room(self._pools.get(pool_id).source, room, outstanding, more_bytes)
