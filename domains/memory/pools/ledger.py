"""The ledger: who may have how much of a pool. What is kept free and in use never exceeds what pool and budget allow.

Between the measurement that shows room and the promise of it there is no `await`: nobody can come between.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec

from domains.errors import DeviceOpsError, ErrorReason, InvalidRequest, ResourceExhausted
from domains.memory.pools.books import Claim
from domains.memory.pools.grants import CallLater, Grants, loop_timer
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
from domains.memory.pools.reservation_book import ReservationBook, check_etag
from domains.memory.pools.waiting import Waiter

MAX_HELD = 10_000
"""More reservations than this are a fault of the caller's."""

Evict = Callable[[str, int], Awaitable[Sequence[str]]]
"""Unload idle models of a pool until so many bytes are free there, if that is possible; answers their ids."""


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """A new reservation, and what it cost others."""

    reservation: Reservation
    evicted_ids: tuple[str, ...] = ()
    """Of the loaded models that were unloaded for it."""


class Ledger:
    """Reservations and claims of all pools. One event loop."""

    def __init__(
        self,
        pools: Pools,
        evict: Evict | None = None,
        *,
        clock: Callable[[], float] = time.time,
        call_later: CallLater = loop_timer,
    ) -> None:
        """`evict`: frees what idle models hold; None: nothing can be evicted."""
        self._pools = pools
        self._evict = evict
        self._clock = clock
        self._book = ReservationBook()
        self._grants = Grants(pools, self._book, clock, call_later)
        self._evicting: dict[str, asyncio.Task[None]] = {}
        """By pool: the eviction for who waits there."""
        pools.on_removed.append(self.lose)
        pools.on_measured.append(self._evict_for_waiter)

    def tell(self, on_ended: Callable[[Reservation], None]) -> None:
        """Whom to tell of each reservation that has ended unused: EXPIRED, PREEMPTED or LOST."""
        self._grants.on_ended = on_ended

    async def create(self, ask: ReservationAsk) -> Granted:
        """Keep bytes free. Cancelling ends the wait."""
        granted = await self._create(msgspec.structs.replace(ask, pool_id=self._pools.get(ask.pool_id).source.pool_id))
        return msgspec.structs.replace(granted, reservation=self._book.known(granted.reservation.id))

    def known(self, reservation_id: str) -> Reservation:
        """As it is by now; RESERVATION_NOT_FOUND if it was deleted, or ended long ago."""
        return self._book.known(reservation_id)

    def list(self, wanted: ReservationWanted) -> list[Reservation]:
        """Those that the filter wants, the newest first."""
        return [reservation for reservation in self._book.list(self._clock()) if wanted.fits(reservation)]

    async def renew(
        self, reservation_id: str, live_s: float = DEFAULT_LIVE_S, size_bytes: int | None = None, etag: str = ""
    ) -> Reservation:
        """Put off its end, and change its size: all of it or nothing."""
        if wrong := [*wrong_live(live_s), *(wrong_size(size_bytes) if size_bytes is not None else [])]:
            raise InvalidRequest(wrong)
        kept = self._book.held(reservation_id, etag)
        if size_bytes is not None and size_bytes > kept.reservation.size_bytes:
            await self._pools.measure(kept.reservation.pool_id)
            kept = self._book.held(reservation_id, etag)
            more = size_bytes - kept.reservation.size_bytes
            if more > self._grants.free_bytes(kept.reservation.pool_id):
                raise self._grants.no_room(kept.reservation.pool_id, more)
        size = size_bytes or kept.reservation.size_bytes
        renewed = self._book.change(kept, size_bytes=size, expire_time_s=self._clock() + live_s)
        self._grants.arm(renewed.id, live_s)
        self._pools.books.resize(kept.promise, size)
        return renewed

    def delete(self, reservation_id: str, etag: str = "") -> int:
        """Give it back and forget it; the bytes that are free again. 0: it had ended before."""
        reservation = self._book.known(reservation_id)
        check_etag(reservation, etag)
        if reservation.state in (ReservationState.HELD, ReservationState.COMMITTED):
            kept = self._book.held(reservation_id)
            self._book.delete(reservation_id)
            self._grants.release(kept)
            return reservation.size_bytes
        self._book.delete(reservation_id)
        return 0

    def find(self, reservation_id: str) -> Reservation | None:
        """HELD or ended. None: it was deleted, ended long ago, or is of an earlier server."""
        return self._book.find(reservation_id)

    def get(self, reservation_id: str) -> Reservation:
        """HELD or ended. RESERVATION_NOT_FOUND for one that was deleted, or ended more than an hour ago."""
        return self._book.get(reservation_id, self._clock())

    def find_held(self, reservation_id: str) -> Reservation:
        """One that is HELD; otherwise RESERVATION_NOT_FOUND, RESERVATION_EXPIRED or ILLEGAL_STATE."""
        return self._book.held(reservation_id).reservation

    def commit(self, reservation_id: str, consumer_id: str, size_bytes: int | None = None) -> Claim:
        """Its bytes belong to the consumer, who closes the claim when they are allocated.

        `size_bytes`: how many are claimed in fact; the caller has looked that there is room for more than were kept.
        """
        kept = self._book.held(reservation_id)
        self._book.end(kept, ReservationState.COMMITTED, self._clock(), consumer_id)
        self._grants.disarm(reservation_id)
        self._pools.books.claim(kept.promise, consumer_id)
        if size_bytes is not None:
            self._pools.books.resize(kept.promise, size_bytes)
        return Claim(self._pools.books, kept.promise)

    def held(self, pool_id: str) -> Sequence[Reservation]:
        """Those of a pool in the order in which a smaller budget ends them: the lowest priority, then the newest first."""
        return self._grants.held(pool_id)

    def preempt(self, reservation_id: str) -> None:
        """End it for something more important. One that has ended meanwhile stays as it is."""
        self._grants.preempt(reservation_id)

    def lose(self, pool_id: str) -> None:
        """The pool's device is lost, and with it what was kept there, which is told; those who wait hear DEVICE_LOST."""
        self._grants.lose(pool_id)

    async def _create(self, ask: ReservationAsk) -> Granted:
        await self._pools.measure(ask.pool_id)
        self._check_count()
        if self._grants.can_never_fit(ask):
            raise self._grants.no_room(ask.pool_id, ask.size_bytes)
        if reservation := self._grants.grant(ask):
            return Granted(reservation=reservation)
        evicted = await self._make_room(ask)
        if reservation := self._grants.grant(ask):
            return Granted(reservation=reservation, evicted_ids=tuple(evicted))
        reservation, more = await self._grants.wait(ask)
        return Granted(reservation=reservation, evicted_ids=(*evicted, *more))

    async def _make_room(self, ask: ReservationAsk) -> Sequence[str]:
        """Evict idle models, if the caller allows it."""
        if not ask.allow_eviction or self._evict is None or self._grants.must_wait(ask):
            return ()
        evicted = await self._evict(ask.pool_id, ask.size_bytes - self._grants.free_bytes(ask.pool_id))
        await self._pools.measure(ask.pool_id)
        return evicted

    def _evict_for_waiter(self, pool_id: str) -> None:
        """Models that have turned idle may make room for who is first in line, if that caller allows it."""
        waiter = self._grants.first_waiting(pool_id)
        if waiter is not None and waiter.ask.allow_eviction and pool_id not in self._evicting:
            task = self._evicting[pool_id] = asyncio.create_task(self._make_room_for(waiter))
            task.add_done_callback(lambda _: self._evicting.pop(pool_id))

    async def _make_room_for(self, waiter: Waiter) -> None:
        pool_id = waiter.ask.pool_id
        lacking = waiter.ask.size_bytes - self._grants.free_bytes(pool_id)
        if self._evict is None or lacking <= 0:
            return
        # A pool that cannot be measured now is tried again with its next measurement.
        with suppress(DeviceOpsError):
            if evicted := await self._evict(pool_id, lacking):
                waiter.evicted_ids += evicted
                await self._pools.measure(pool_id)

    def _check_count(self) -> None:
        if len(self._book) >= MAX_HELD:
            message = f"{MAX_HELD} reservations are held; delete those that are not needed"
            raise ResourceExhausted(message, ErrorReason.QUOTA_EXCEEDED, limit=MAX_HELD)
