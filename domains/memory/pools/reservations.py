"""Reservations of all pools: held, renewed, used up, given back, and ended by time, priority or loss of the device.

No `await` stands between the measurement that shows room and the claim on it, so no other caller can take the room.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from domains.clock import ClockStep, ExpiryClock
from domains.errors import ErrorReason, InvalidRequest, ResourceExhausted
from domains.memory.pools.claims import Claim
from domains.memory.pools.pool import no_room
from domains.memory.pools.pools import Pools
from domains.memory.pools.reservation import (
    DEFAULT_LIVE_S,
    Reservation,
    ReservationAsk,
    ReservationState,
    ReservationWanted,
    wrong_live,
    wrong_size,
)
from domains.memory.pools.reservation_table import HeldReservation, ReservationTable, check_etag

MAX_HELD = 10_000
"""Most held reservations at a time; further ones are refused with QUOTA_EXCEEDED."""


class Timer(Protocol):
    """A timer that can be cancelled."""

    def cancel(self) -> object: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


def loop_timer(after_s: float, call: Callable[[], None]) -> Timer:
    """A timer of the running event loop."""
    return asyncio.get_running_loop().call_later(after_s, call)


class Reservations:
    """The reservations of all pools. One event loop."""

    def __init__(
        self,
        pools: Pools,
        *,
        expiry: ExpiryClock | None = None,
        clock: Callable[[], float] = time.time,
        call_later: CallLater = loop_timer,
    ) -> None:
        """`expiry`: reports steps of the wall clock, which move the expiry dates. None: no step is reported."""
        if expiry is not None:
            expiry.on_step.append(self._clock_stepped)
        self._pools = pools
        self._clock = clock
        self._call_later = call_later
        self._table = ReservationTable()
        self._timers: dict[str, Timer] = {}
        self.on_ended: list[Callable[[Reservation], None]] = []
        """Listeners: each reservation that ended unused (EXPIRED, PREEMPTED or LOST), before its bytes are free."""
        self.on_lost: list[Callable[[str], None]] = []
        """Listeners: id of a pool whose device is lost, before the reservations there end."""

    def hold(self, ask: ReservationAsk) -> Reservation:
        """Keep the bytes free from now on. The caller has checked that the pool has them."""
        reservation = self._table.draft(ask, self._clock())
        self._table.put(reservation, self._pools.claims.keep(ask.pool_id, ask.size_bytes))
        self._arm(reservation.id, ask.live_s)
        return reservation

    def get(self, reservation_id: str) -> Reservation:
        """HELD, or ended within the last hour; RESERVATION_NOT_FOUND otherwise."""
        return self._table.get(reservation_id, self._clock())

    def find_held(self, reservation_id: str) -> Reservation:
        """A HELD one; RESERVATION_NOT_FOUND, RESERVATION_EXPIRED or ILLEGAL_STATE otherwise."""
        return self._table.held(reservation_id).reservation

    def is_held(self, reservation_id: str) -> bool:
        """Whether a reservation is HELD."""
        reservation = self._table.find(reservation_id)
        return reservation is not None and reservation.state is ReservationState.HELD

    def list(self, wanted: ReservationWanted) -> list[Reservation]:
        """The reservations that fit the filter, newest first."""
        return [reservation for reservation in self._table.list(self._clock()) if wanted.fits(reservation)]

    def held(self, pool_id: str) -> Sequence[Reservation]:
        """HELD ones of a pool in the order in which a smaller budget ends them: lowest priority, then newest first."""
        held = [each.reservation for each in self._table.all_held(pool_id)]
        return sorted(held, key=lambda reservation: (reservation.priority, -reservation.sequence))

    async def renew(
        self, reservation_id: str, live_s: float = DEFAULT_LIVE_S, size_bytes: int | None = None, etag: str = ""
    ) -> Reservation:
        """Extend the time to live and change the size: both or neither."""
        if wrong := [*wrong_live(live_s), *(wrong_size(size_bytes) if size_bytes is not None else [])]:
            raise InvalidRequest(wrong)
        held = self._table.held(reservation_id, etag)
        if size_bytes is not None and size_bytes > held.reservation.size_bytes:
            await self._pools.measure(held.reservation.pool_id)
            held = self._table.held(reservation_id, etag)
            more = size_bytes - held.reservation.size_bytes
            if more > self.free_bytes(held.reservation.pool_id):
                raise self.no_room(held.reservation.pool_id, more)
        size = size_bytes or held.reservation.size_bytes
        renewed = self._table.change(held, size_bytes=size, expire_time_s=self._clock() + live_s)
        self._arm(renewed.id, live_s)
        self._pools.claims.resize(held.claim, size)
        return renewed

    def commit(self, reservation_id: str, consumer_id: str, size_bytes: int | None = None) -> Claim:
        """Use a reservation up: the consumer takes its claim.

        `size_bytes`: bytes to claim instead of the reserved ones. The caller has checked that the pool has more of them.
        """
        held = self._table.held(reservation_id)
        self._table.end(held, ReservationState.COMMITTED, self._clock(), consumer_id)
        self._disarm(reservation_id)
        self._pools.claims.take(held.claim, consumer_id)
        if size_bytes is not None:
            self._pools.claims.resize(held.claim, size_bytes)
        return held.claim

    def delete(self, reservation_id: str, etag: str = "") -> int:
        """Delete a reservation and free its bytes. Returns the freed bytes; 0: the reservation had ended before."""
        reservation = self.get(reservation_id)
        check_etag(reservation, etag)
        if reservation.state in (ReservationState.HELD, ReservationState.COMMITTED):
            held = self._table.held(reservation_id)
            self._table.delete(reservation_id)
            self._release(held)
            return reservation.size_bytes
        self._table.delete(reservation_id)
        return 0

    def preempt(self, reservation_id: str) -> None:
        """End a reservation for a more urgent need. One that has ended stays as it is."""
        if self.is_held(reservation_id):
            self._end(reservation_id, ReservationState.PREEMPTED)

    def lose(self, pool_id: str) -> None:
        """End all reservations of a pool whose device is lost."""
        for tell in self.on_lost:
            tell(pool_id)
        for held in tuple(self._table.all_held(pool_id)):
            self._end(held.reservation.id, ReservationState.LOST)

    def _clock_stepped(self, step: ClockStep) -> None:
        """Move the dates with the wall clock."""
        self._table.move(step)

    def free_bytes(self, pool_id: str) -> int:
        """Bytes that can still be reserved. 0 for a pool that cannot be measured and has no limit."""
        return (self._pools.room(pool_id).free_bytes or 0) - self._pools.claims.outstanding_bytes(pool_id)

    def can_never_fit(self, ask: ReservationAsk) -> bool:
        """Whether the request exceeds what pool and budget could ever give."""
        state = self._pools.get(ask.pool_id)
        ceiling = state.budget.ceiling_bytes(state.measure.total_bytes if state.measure else None)
        return ceiling is None or ask.size_bytes > ceiling

    def no_room(self, pool_id: str, need_bytes: int) -> ResourceExhausted:
        """The refusal, with the time until the next reservation of the pool ends."""
        room, outstanding = self._pools.room(pool_id), self._pools.claims.outstanding_bytes(pool_id)
        ends = [held.reservation.expire_time_s - self._clock() for held in self._table.all_held(pool_id)]
        source = self._pools.get(pool_id).source
        return no_room(source, room, outstanding, need_bytes, max(1.0, min(ends)) if ends else None)

    def check_count(self) -> None:
        """QUOTA_EXCEEDED: too many reservations are held."""
        if len(self._table) >= MAX_HELD:
            message = f"{MAX_HELD} reservations are held; delete those that are not needed"
            raise ResourceExhausted(message, ErrorReason.QUOTA_EXCEEDED, limit=MAX_HELD)

    def _end(self, reservation_id: str, state: ReservationState) -> None:
        held = self._table.held(reservation_id)
        ended = self._table.end(held, state, self._clock())
        # Listeners hear the end first: the bytes may be granted again at once.
        for tell in self.on_ended:
            tell(ended)
        self._release(held)

    def _release(self, held: HeldReservation) -> None:
        self._disarm(held.reservation.id)
        self._pools.claims.drop(held.claim)

    def _arm(self, reservation_id: str, live_s: float) -> None:
        """Let the reservation expire after `live_s`."""
        self._disarm(reservation_id)
        self._timers[reservation_id] = self._call_later(
            live_s, lambda: self._end(reservation_id, ReservationState.EXPIRED)
        )

    def _disarm(self, reservation_id: str) -> None:
        if timer := self._timers.pop(reservation_id, None):
            timer.cancel()
