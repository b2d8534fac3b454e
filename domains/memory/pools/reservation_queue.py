"""Grants reservations: at once, after an eviction of idle models, or in turn when memory becomes free."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress

import msgspec

from domains.errors import Aborted, DeviceOpsError, ErrorReason
from domains.memory.pools.pools import Pools
from domains.memory.pools.reservation import Priority, Reservation, ReservationAsk
from domains.memory.pools.reservations import CallLater, Reservations, loop_timer
from domains.memory.pools.waiting_line import Waiter, WaitingLine

Evict = Callable[[str, int], Awaitable[Sequence[str]]]
"""Unloads idle models of a pool (id) until so many bytes are free there, or none if they do not suffice.
Returns their ids."""


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """A new reservation, and the models that were evicted for it."""

    reservation: Reservation
    evicted_ids: tuple[str, ...] = ()
    """Ids of the loaded models that were unloaded."""


class ReservationQueue:
    """The requests for reservations of all pools. One event loop.

    While one request is served, no other is: bytes that become free meanwhile belong to the request that freed them.
    """

    def __init__(
        self, pools: Pools, reservations: Reservations, evict: Evict, *, call_later: CallLater = loop_timer
    ) -> None:
        self._pools = pools
        self._reservations = reservations
        self._evict = evict
        self._call_later = call_later
        self._lines: dict[str, WaitingLine] = {}
        self._serving = False
        self._evicting: dict[str, asyncio.Task[None]] = {}
        """By pool: the eviction for the first waiter."""
        pools.claims.on_freed.append(self._serve)
        pools.on_measured.append(self._serve)
        pools.on_measured.append(self._evict_for_waiter)
        reservations.on_lost.append(self._end_line)

    async def create(self, ask: ReservationAsk) -> Granted:
        """Grant a reservation, after a wait if the caller allows one. Cancelling ends the wait."""
        granted = await self._create(msgspec.structs.replace(ask, pool_id=self._pools.get(ask.pool_id).source.pool_id))
        return msgspec.structs.replace(granted, reservation=self._reservations.get(granted.reservation.id))

    async def _create(self, ask: ReservationAsk) -> Granted:
        await self._pools.measure(ask.pool_id)
        self._reservations.check_count()
        if self._reservations.can_never_fit(ask):
            raise self._reservations.no_room(ask.pool_id, ask.size_bytes)
        if reservation := self._grant(ask):
            return Granted(reservation=reservation)
        evicted = await self._make_room(ask)
        if reservation := self._grant(ask):
            return Granted(reservation=reservation, evicted_ids=tuple(evicted))
        reservation, more = await self._wait(ask)
        return Granted(reservation=reservation, evicted_ids=(*evicted, *more))

    def _must_wait(self, ask: ReservationAsk) -> bool:
        """Whether requests of the same or a higher priority wait already."""
        line = self._lines.get(ask.pool_id)
        return bool(line and line.before(ask))

    def _grant(self, ask: ReservationAsk) -> Reservation | None:
        """Grant the reservation now. None: there is no room for it, or other requests come first."""
        if self._must_wait(ask):
            return None
        with self._exclusively():
            if not self._fits(ask):
                return None
            reservation = self._reservations.hold(ask)
        self._serve(ask.pool_id)
        return reservation

    def _fits(self, ask: ReservationAsk) -> bool:
        """Whether there is room. For a CRITICAL request, ends reservations of LOW priority if that suffices."""
        lacking = ask.size_bytes - self._reservations.free_bytes(ask.pool_id)
        if lacking > 0 and ask.priority is Priority.CRITICAL:
            low = [each for each in self._reservations.held(ask.pool_id) if each.priority is Priority.LOW]
            if sum(each.size_bytes for each in low) >= lacking:
                self._preempt_for(lacking, low)
        return ask.size_bytes <= self._reservations.free_bytes(ask.pool_id)

    def _preempt_for(self, lacking: int, victims: Sequence[Reservation]) -> None:
        for victim in victims:
            if lacking <= 0:
                return
            lacking -= victim.size_bytes
            self._reservations.preempt(victim.id)

    async def _wait(self, ask: ReservationAsk) -> tuple[Reservation, Sequence[str]]:
        """Wait in line. Returns the reservation and the ids of the models that were evicted for it meanwhile.

        A reservation whose caller has left by then is deleted at once.
        """
        if not ask.wait_s:
            raise self._reservations.no_room(ask.pool_id, ask.size_bytes)
        line = self._lines.setdefault(ask.pool_id, WaitingLine())
        waiter = line.join(ask)
        timer = self._call_later(ask.wait_s, lambda: self._give_up(ask, line, waiter))
        try:
            return await waiter.granted, waiter.evicted_ids
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
                self._reservations.delete(waiter.granted.result().id)
            raise
        finally:
            timer.cancel()
            line.leave(waiter)
            self._serve(ask.pool_id)

    def _give_up(self, ask: ReservationAsk, line: WaitingLine, waiter: Waiter) -> None:
        line.leave(waiter)
        if not waiter.granted.done():
            waiter.granted.set_exception(self._reservations.no_room(ask.pool_id, ask.size_bytes))

    def _serve(self, pool_id: str) -> None:
        """Grant what fits to the waiters in their order, and refuse a request that can never fit any more."""
        line = self._lines.get(pool_id)
        if self._serving or not line:
            return
        with self._exclusively():
            while line:
                waiter = line.first
                if self._reservations.can_never_fit(waiter.ask):
                    self._give_up(waiter.ask, line, waiter)
                elif waiter.granted.done():
                    line.leave(waiter)
                elif self._fits(waiter.ask):
                    line.leave(waiter)
                    waiter.granted.set_result(self._reservations.hold(waiter.ask))
                else:
                    return

    @contextmanager
    def _exclusively(self) -> Generator[None]:
        """Serve no other request meanwhile."""
        before, self._serving = self._serving, True
        try:
            yield
        finally:
            self._serving = before

    def _end_line(self, pool_id: str) -> None:
        """The pool's device is lost: all its waiters get DEVICE_LOST."""
        if line := self._lines.pop(pool_id, None):
            message = f"the device of memory pool {pool_id} was lost; choose another"
            line.end(Aborted(message, ErrorReason.DEVICE_LOST, memory_pool_id=pool_id))

    async def _make_room(self, ask: ReservationAsk) -> Sequence[str]:
        """Evict idle models, if the caller allows it. Returns their ids."""
        if not ask.allow_eviction or self._must_wait(ask):
            return ()
        evicted = await self._evict(ask.pool_id, ask.size_bytes - self._reservations.free_bytes(ask.pool_id))
        await self._pools.measure(ask.pool_id)
        return evicted

    def _evict_for_waiter(self, pool_id: str) -> None:
        """Evict models that have become idle for the first waiter, if its caller allows it."""
        line = self._lines.get(pool_id)
        if line and line.first.ask.allow_eviction and pool_id not in self._evicting:
            task = self._evicting[pool_id] = asyncio.create_task(self._make_room_for(line.first))
            task.add_done_callback(lambda _: self._evicting.pop(pool_id))

    async def _make_room_for(self, waiter: Waiter) -> None:
        pool_id = waiter.ask.pool_id
        lacking = waiter.ask.size_bytes - self._reservations.free_bytes(pool_id)
        # The next measurement retries an eviction that fails because the pool cannot be measured now.
        with suppress(DeviceOpsError):
            if evicted := await self._evict(pool_id, lacking):
                waiter.evicted_ids += evicted
                await self._pools.measure(pool_id)
