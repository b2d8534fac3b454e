"""Samples of devices for watchers, taken once for all watchers, at the shortest of their intervals.

There is no sampling task. Time is divided into ticks of the shortest interval, counted from the first watcher's start. The
first watcher that is due in a tick takes the sample, and the other watchers of that tick share it. Without watchers there
is no sampling, and a device that no watcher asked for is not sampled. Due times count from a watcher's start, not from the
previous message, so delays do not add up.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from domains.device.status import DeviceStatus

SHORTEST_S, LONGEST_S = 0.1, 60.0
_SAME_S = 1e-6
"""Times closer than this are equal: floating point."""


class Clock(Protocol):
    """A clock that tests can advance."""

    def now(self) -> float:
        """Seconds since any fixed moment."""
        ...

    async def until(self, when: float) -> None:
        """Wait until `now() >= when`."""
        ...


class LoopClock:
    """The real clock."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    async def until(self, when: float) -> None:
        """Sleep."""
        await asyncio.sleep(when - time.monotonic())


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One sample of each device that a watcher asked for."""

    statuses: tuple[DeviceStatus, ...]
    skipped_count: int
    """Rounds that were due since the previous round while the watcher was busy."""


class StatusFeed:
    """Serves all watchers. One event loop."""

    def __init__(
        self,
        ids: Callable[[], Sequence[str]],
        status: Callable[[str], Awaitable[DeviceStatus]],
        clock: Clock | None = None,
    ) -> None:
        """`ids`: all present devices; `status`: measures one of them."""
        self._ids = ids
        self._status = status
        self._clock = clock or LoopClock()
        self._asked: dict[object, float] = {}
        """Interval of each watcher."""
        self._tick_s = LONGEST_S
        self._anchor = math.nan
        """Time that the ticks are counted from. Not a number until somebody watches."""
        self._newest: dict[str, tuple[float, asyncio.Task[DeviceStatus]]] = {}
        """By device: start time of its newest sample, and the sample."""

    async def watch(self, ids: Sequence[str], interval_s: float) -> AsyncGenerator[Round]:
        """Yield rounds of these devices (empty: all devices), the first at once, until the watcher closes the generator.

        A slow watcher gets the newest round and the number of rounds that it missed.
        """
        me = object()
        begin = self._clock.now()
        self._join(me, interval_s, begin)
        turn, skipped = 0, 0
        try:
            while True:
                statuses = await self._round(ids or self._ids())
                yield Round(statuses=statuses, skipped_count=skipped)
                now = self._clock.now()
                # Rounds whose time is over are missed; the present one can still be delivered.
                passed = math.floor((now - begin) / interval_s + _SAME_S)
                skipped = max(0, passed - turn - 1)
                turn += skipped + 1
                await self._clock.until(self._on_tick(begin + turn * interval_s, now))
        finally:
            self._leave(me)

    def _join(self, watcher: object, interval_s: float, now: float) -> None:
        if not self._asked:
            self._anchor = now
            # A sample that the previous watchers took at this moment is used instead of a new one.
            self._newest = {name: kept for name, kept in self._newest.items() if kept[0] >= now - _SAME_S}
        self._asked[watcher] = interval_s
        self._tick_s = min(self._asked.values())

    def _leave(self, watcher: object) -> None:
        self._asked.pop(watcher, None)
        self._tick_s = min(self._asked.values(), default=LONGEST_S)

    def _on_tick(self, due: float, now: float) -> float:
        """The tick nearest to `due`, so that watchers with one interval share their samples."""
        if due <= now:
            return due
        tick = self._anchor + round((due - self._anchor) / self._tick_s) * self._tick_s
        return tick if tick > now + _SAME_S else tick + self._tick_s

    async def _round(self, ids: Sequence[str]) -> tuple[DeviceStatus, ...]:
        samples = [self._sample(device_id) for device_id in ids]
        # Another watcher may share a sample: a watcher that leaves must not cancel it.
        return tuple([await asyncio.shield(sample) for sample in samples])

    def _sample(self, device_id: str) -> asyncio.Task[DeviceStatus]:
        """The sample of this tick, taken unless another watcher has taken it."""
        now = self._clock.now()
        tick = self._anchor + math.floor((now - self._anchor) / self._tick_s + _SAME_S) * self._tick_s
        begun, sample = self._newest.get(device_id, (math.nan, None))
        if sample is None or (sample.done() and begun < tick - _SAME_S):
            sample = asyncio.ensure_future(self._measure(device_id))
            self._newest[device_id] = now, sample
        return sample

    async def _measure(self, device_id: str) -> DeviceStatus:
        return await self._status(device_id)
