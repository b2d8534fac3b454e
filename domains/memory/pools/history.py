"""The history of a pool: samples of a day, in bounded memory.

Every measurement goes into three rings of equal steps (1 s, 10 s, 1 min). A step keeps the worst of its measurements.
"""

from collections import deque
from collections.abc import Mapping

import msgspec

from domains.measurement import LatencySummary
from domains.memory.measure import MemoryMeasure
from domains.memory.pools.leaks import WINDOW_S, LeakWatch, OwnerKey
from domains.memory.pools.pressure import Pressure
from domains.rings import Rings

_TIMED = 10_000
"""Allocations of blobs that are remembered."""
_RINGS = ((1, 3660), (10, 2200), (60, 1450))
"""Step in s and number of steps: a little more than an hour, six hours and a day."""


class PoolSample(msgspec.Struct, kw_only=True):
    """The use of a pool over one step: the worst of the measurements. None: not measured."""

    time_s: float
    """Unix time at which the step began."""
    used_bytes: int | None = None
    held_bytes: int | None = None
    live_bytes: int | None = None
    reserved_bytes: int = 0
    pressure: Pressure | None = None
    allocations: int | None = None
    """Allocations that the allocator counted in this step."""
    failures: int = 0
    """Failed allocations in this step."""

    def fold(self, other: "PoolSample") -> None:
        """Merge another sample: the worst of both."""
        self.used_bytes = _worst(self.used_bytes, other.used_bytes)
        self.held_bytes = _worst(self.held_bytes, other.held_bytes)
        self.live_bytes = _worst(self.live_bytes, other.live_bytes)
        self.reserved_bytes = max(self.reserved_bytes, other.reserved_bytes)
        worse = _worst(self.pressure, other.pressure)
        self.pressure = None if worse is None else Pressure(worse)
        if other.allocations is not None:
            self.allocations = (self.allocations or 0) + other.allocations
        self.failures += other.failures


def _worst(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


def _empty(time_s: float) -> PoolSample:
    return PoolSample(time_s=time_s)


class HistoryView(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a history."""

    samples: tuple[PoolSample, ...]
    """Oldest first, one for each step without gaps, at most 1000."""
    step_s: float
    allocation_count: int | None
    """None: the allocator does not count."""
    allocation_failure_count: int
    mean_allocation_bytes: int | None
    allocation_latency: LatencySummary | None
    """Latency of the allocations that the server timed. None: there were none."""


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """An allocation that the server made and timed."""

    time_s: float
    took_s: float
    size_bytes: int


class PoolHistory:
    """The history of one pool. It keeps a day."""

    def __init__(self, leak_window_s: float = WINDOW_S) -> None:
        self._rings = Rings(_RINGS, _empty)
        self._allocations: deque[Allocation] = deque(maxlen=_TIMED)
        self._counted: int | None = None
        self._failed = 0
        self.leaks = LeakWatch(leak_window_s)

    def add(
        self,
        measure: MemoryMeasure,
        reserved_bytes: int,
        pressure: Pressure | None,
        work: Mapping[OwnerKey, float] | None = None,
    ) -> None:
        """Add a measurement. `work`: the present work of each owner; missing: no more than before."""
        sample = PoolSample(
            time_s=measure.time_s,
            used_bytes=measure.used_bytes,
            held_bytes=measure.held_bytes,
            live_bytes=measure.live_bytes,
            reserved_bytes=reserved_bytes,
            pressure=pressure,
            allocations=self._new_allocations(measure.allocation_count),
            failures=_rise(self._failed, measure.allocation_failure_count),
        )
        self._counted, self._failed = measure.allocation_count, measure.allocation_failure_count
        self._rings.add(sample)
        self.leaks.add(measure.time_s, measure.owners, work)

    def allocated(self, allocation: Allocation) -> None:
        """Add an allocation of a blob."""
        self._allocations.append(allocation)

    def query(self, start_s: float | None, end_s: float, step_s: float | None = None) -> HistoryView:
        """The part from start to end, in steps of about this length: longer if there would be more than 1000.

        No start: an hour before the end. A start before the first sample: the first sample.
        """
        start_s = end_s - 3600 if start_s is None else start_s
        span = self._rings.query(start_s, end_s, step_s)
        samples = span.steps
        counts = [sample.allocations for sample in samples if sample.allocations is not None]
        timed = [each for each in self._allocations if start_s <= each.time_s <= end_s]
        return HistoryView(
            samples=samples,
            step_s=span.step_s,
            allocation_count=sum(counts) if counts else None,
            allocation_failure_count=sum(sample.failures for sample in samples),
            mean_allocation_bytes=sum(each.size_bytes for each in timed) // len(timed) if timed else None,
            allocation_latency=LatencySummary.of([each.took_s for each in timed]),
        )

    def _new_allocations(self, count: int | None) -> int | None:
        if count is None:
            return None
        # The first count covers the time before the first measurement.
        return 0 if self._counted is None else _rise(self._counted, count)


def _rise(before: int, now: int) -> int:
    """The rise of a counter. A counter that fell was reset by a restart of its worker."""
    return now - before if now >= before else now
