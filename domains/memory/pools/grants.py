"""Granting: what fits is held, what does not stands in line, and what is held ends by itself.

While somebody is served nobody else is: bytes that become free on the way belong to the one they were freed for.
"""

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

from domains.errors import Aborted, ErrorReason, ResourceExhausted
from domains.memory.pools.pool import no_room
from domains.memory.pools.pools import Pools
from domains.memory.pools.reservation import Priority, Reservation, ReservationAsk, ReservationState
from domains.memory.pools.reservation_book import Kept, ReservationBook
from domains.memory.pools.waiting import Waiter, WaitingLine


class Timer(Protocol):
    """What can be called off."""

    def cancel(self) -> object: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


def loop_timer(after_s: float, call: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(after_s, call)


class Grants:
    """The holding, waiting and ending of reservations. One event loop."""

    def __init__(self, pools: Pools, book: ReservationBook, clock: Callable[[], float], call_later: CallLater) -> None:
        self._pools = pools
        self._book = book
        self._clock = clock
        self._call_later = call_later
        self._timers: dict[str, Timer] = {}
        self._lines: dict[str, WaitingLine] = {}
        self._granting = False
        self.on_ended: Callable[[Reservation], None] = lambda reservation: None
        """Hears of each that has ended unused: EXPIRED, PREEMPTED or LOST."""
        pools.books.on_freed.append(self._serve)
        pools.on_measured.append(self._serve)

    def must_wait(self, ask: ReservationAsk) -> bool:
        """Whether others stand in line whom a newcomer must not overtake."""
        line = self._lines.get(ask.pool_id)
        return bool(line and line.before(ask))

    def grant(self, ask: ReservationAsk) -> Reservation | None:
        """Hold it now. None: there is no room for it, or others come first."""
        if self.must_wait(ask):
            return None
        with self._granted_to_nobody_else():
            if not self._fits(ask):
                return None
            reservation = self._hold(ask)
        self._serve(ask.pool_id)
        return reservation

    def _fits(self, ask: ReservationAsk) -> bool:
        """Whether there is room, if need be after ending reservations of LOW priority for a CRITICAL one."""
        lacking = ask.size_bytes - self.free_bytes(ask.pool_id)
        if lacking > 0 and ask.priority is Priority.CRITICAL:
            low = [each for each in self.held(ask.pool_id) if each.priority is Priority.LOW]
            if sum(each.size_bytes for each in low) >= lacking:
                self._preempt_for(lacking, low)
        return ask.size_bytes <= self.free_bytes(ask.pool_id)

    def _preempt_for(self, lacking: int, victims: Sequence[Reservation]) -> None:
        for victim in victims:
            if lacking <= 0:
                return
            lacking -= victim.size_bytes
            self.preempt(victim.id)

    def _hold(self, ask: ReservationAsk) -> Reservation:
        reservation = self._book.draft(ask, self._clock())
        promise = self._pools.books.promise(reservation.id, ask.pool_id, ask.size_bytes)
        self._book.put(reservation, promise)
        self.arm(reservation.id, ask.live_s)
        return reservation

    def first_waiting(self, pool_id: str) -> Waiter | None:
        """Whose turn it is when there is room. None: nobody waits."""
        line = self._lines.get(pool_id)
        return line.first if line else None

    async def wait(self, ask: ReservationAsk) -> tuple[Reservation, Sequence[str]]:
        """Stand in line; what was granted, and what was evicted for it meanwhile.

        What is granted to a caller who has left by then is free again at once.
        """
        if not ask.wait_s:
            raise self.no_room(ask.pool_id, ask.size_bytes)
        line = self._lines.setdefault(ask.pool_id, WaitingLine())
        waiter = line.join(ask)
        timer = self._call_later(ask.wait_s, lambda: self._give_up(ask, line, waiter))
        try:
            return await waiter.granted, waiter.evicted_ids
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
                self._take_back(waiter.granted.result().id)
            raise
        finally:
            timer.cancel()
            line.leave(waiter)
            self._serve(ask.pool_id)

    def _give_up(self, ask: ReservationAsk, line: WaitingLine, waiter: Waiter) -> None:
        line.leave(waiter)
        if not waiter.granted.done():
            waiter.granted.set_exception(self.no_room(ask.pool_id, ask.size_bytes))

    def _serve(self, pool_id: str) -> None:
        """Grant what fits to those who wait, in their order; one that can never fit any more hears it now."""
        line = self._lines.get(pool_id)
        if self._granting or not line:
            return
        with self._granted_to_nobody_else():
            while line:
                waiter = line.first
                if self.can_never_fit(waiter.ask):
                    self._give_up(waiter.ask, line, waiter)
                elif waiter.granted.done():
                    line.leave(waiter)
                elif self._fits(waiter.ask):
                    line.leave(waiter)
                    waiter.granted.set_result(self._hold(waiter.ask))
                else:
                    return

    @contextmanager
    def _granted_to_nobody_else(self) -> Generator[None]:
        """While somebody is served, bytes that become free on the way are not given to others."""
        before, self._granting = self._granting, True
        try:
            yield
        finally:
            self._granting = before

    def _end(self, reservation_id: str, state: ReservationState) -> None:
        kept = self._book.held(reservation_id)
        ended = self._book.end(kept, state, self._clock())
        # The end first: others may get the bytes at once.
        self.on_ended(ended)
        self.release(kept)

    def _take_back(self, reservation_id: str) -> None:
        kept = self._book.held(reservation_id)
        self._book.delete(reservation_id)
        self.release(kept)

    def release(self, kept: Kept) -> None:
        """Its bytes are free; the book has closed it."""
        self.disarm(kept.reservation.id)
        self._pools.books.drop(kept.promise)

    def arm(self, reservation_id: str, live_s: float) -> None:
        """Let it end by itself, so many seconds from now."""
        self.disarm(reservation_id)
        self._timers[reservation_id] = self._call_later(
            live_s, lambda: self._end(reservation_id, ReservationState.EXPIRED)
        )

    def disarm(self, reservation_id: str) -> None:
        """It does not end by itself any more."""
        if timer := self._timers.pop(reservation_id, None):
            timer.cancel()

    def free_bytes(self, pool_id: str) -> int:
        """What may still be promised. A pool that cannot be measured and has no limit promises nothing."""
        return (self._pools.room(pool_id).free_bytes or 0) - self._pools.books.promised_bytes(pool_id)

    def can_never_fit(self, ask: ReservationAsk) -> bool:
        """Whether it is more than pool and budget could ever give."""
        state = self._pools.get(ask.pool_id)
        ceiling = state.budget.ceiling_bytes(state.measure.total_bytes if state.measure else None)
        return ceiling is None or ask.size_bytes > ceiling

    def held(self, pool_id: str) -> Sequence[Reservation]:
        """Those of a pool that a smaller budget may end, in the order in which it would: lowest priority, newest first."""
        held = [kept.reservation for kept in self._book.all_held(pool_id)]
        return sorted(held, key=lambda reservation: (reservation.priority, -reservation.sequence))

    def preempt(self, reservation_id: str) -> None:
        """End it for something more important. One that has ended meanwhile stays as it is."""
        reservation = self._book.find(reservation_id)
        if reservation is not None and reservation.state is ReservationState.HELD:
            self._end(reservation_id, ReservationState.PREEMPTED)

    def lose(self, pool_id: str) -> None:
        """The pool's device is lost, and with it what was kept there, which is told; those who wait hear DEVICE_LOST."""
        if line := self._lines.pop(pool_id, None):
            message = f"the device of memory pool {pool_id} was lost; choose another"
            line.end(Aborted(message, ErrorReason.DEVICE_LOST, memory_pool_id=pool_id))
        for kept in tuple(self._book.all_held(pool_id)):
            self._end(kept.reservation.id, ReservationState.LOST)

    def no_room(self, pool_id: str, need_bytes: int) -> ResourceExhausted:
        """The refusal; it says when the next reservation ends."""
        room, promised = self._pools.room(pool_id), self._pools.books.promised_bytes(pool_id)
        ends = [kept.reservation.expire_time_s - self._clock() for kept in self._book.all_held(pool_id)]
        source = self._pools.get(pool_id).source
        return no_room(source, room, promised, need_bytes, max(1.0, min(ends)) if ends else None)
