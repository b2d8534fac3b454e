"""The state of one pool: source, budget, newest measurement, pressure and history."""

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum

import msgspec

from domains.memory.measure import MemoryMeasure
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.gauge import Gauge
from domains.memory.pools.history import PoolHistory
from domains.memory.pools.pool import PoolSource, PoolView, Room, room_of
from domains.memory.pools.pressure import Pressure, PressureChange, pressure_after, time_to_critical, use_ratio

TREND_S = 300.0
"""The time span of the trend."""
_TREND_STEP_S = 1.0


class Upkeep(StrEnum):
    """Work that the server does on a pool now. Events of the pool have it as their cause meanwhile."""

    NONE = "none"
    RELIEF = "relief"
    """Freeing memory because of the pressure."""
    BUDGET = "budget"
    """Making another budget fit."""


class PoolState:
    """The state of one pool."""

    def __init__(self, source: PoolSource, gauge: Gauge, configured: MemoryBudget, leak_window_s: float) -> None:
        self.source = source
        self.gauge = gauge
        self.configured = configured
        """The budget until a caller sets another."""
        self.budget = configured
        self._changes = itertools.count()
        self.etag = self._next_etag()
        """Changes with the budget only."""
        self.history = PoolHistory(leak_window_s)
        self.measure: MemoryMeasure | None = None
        """The newest measurement."""
        self._held: MemoryMeasure | None = None
        """The newest measurement with `held_bytes`."""
        self.pressure: Pressure | None = None
        self._peak_live_bytes: int | None = None
        self._trend: deque[tuple[float, float]] = deque()
        self.changing = asyncio.Lock()
        """Held while a budget changes or memory is reclaimed."""
        self.upkeep = Upkeep.NONE

    def _next_etag(self) -> str:
        return f"{next(self._changes):x}"

    @contextmanager
    def upkept(self, upkeep: Upkeep) -> Generator[None]:
        """Set the upkeep while the block runs. The caller holds `changing`."""
        self.upkeep = upkeep
        try:
            yield
        finally:
            self.upkeep = Upkeep.NONE

    def note(self, measure: MemoryMeasure) -> PressureChange | None:
        """Note a measurement. Returns the change of pressure, if there is one."""
        self.measure = measure
        if measure.held_bytes is not None:
            self._held = measure
        seen = (self._peak_live_bytes, measure.live_bytes, measure.peak_live_bytes)
        self._peak_live_bytes = max((size for size in seen if size is not None), default=None)
        return self._grade(measure)

    @property
    def room(self) -> Room:
        """The memory for new work if nothing were claimed, as last measured."""
        return self.room_under(self.budget)

    def room_under(self, budget: MemoryBudget) -> Room:
        """`room` under another budget.

        While a busy worker does not report its held bytes, the last reported ones count, so that a limit always holds.
        """
        return room_of(self._with_held(self.measure or MemoryMeasure(time_s=math.nan)), budget)

    def _with_held(self, measure: MemoryMeasure) -> MemoryMeasure:
        if measure.held_bytes is not None or self._held is None:
            return measure
        return msgspec.structs.replace(measure, held_bytes=self._held.held_bytes)

    def set_budget(self, budget: MemoryBudget) -> PressureChange | None:
        """Set the budget. Returns the change of pressure, if there is one."""
        self.budget = budget
        self.etag = self._next_etag()
        # The trend is relative to the old budget.
        self._trend.clear()
        return self._grade(self.measure) if self.measure else None

    def _grade(self, measure: MemoryMeasure) -> PressureChange | None:
        previous, ratio = self.pressure, use_ratio(measure, self.budget)
        if ratio is None:
            self.pressure = None
            return None
        self._follow(measure.time_s, ratio)
        self.pressure = pressure_after(previous, ratio, self.budget)
        # The first measurement of a pool is a change only above LOW.
        if previous is self.pressure or (previous is None and self.pressure is Pressure.LOW):
            return None
        return PressureChange(
            pool_id=self.source.pool_id, previous=previous, current=self.pressure, time_s=measure.time_s
        )

    def _follow(self, time_s: float, ratio: float) -> None:
        if not self._trend or time_s - self._trend[-1][0] >= _TREND_STEP_S:
            self._trend.append((time_s, ratio))
        while self._trend[0][0] < time_s - TREND_S:
            self._trend.popleft()

    def view(self, measure: MemoryMeasure | None, outstanding_bytes: int) -> PoolView:
        """The view of a measurement. None: the pool could not be measured."""
        free = self.room.free_bytes if measure else None
        graded = measure is not None and use_ratio(measure, self.budget) is not None
        return PoolView(
            id=self.source.pool_id,
            kind=self.source.kind,
            device_id=self.source.device_id,
            measure=measure or MemoryMeasure(time_s=time.time()),
            reserved_bytes=outstanding_bytes,
            available_bytes=None if free is None else max(0, free - outstanding_bytes),
            peak_live_bytes=self._peak_live_bytes,
            pressure=self.pressure if graded else None,
            time_to_critical_s=time_to_critical(tuple(self._trend), self.budget) if graded else None,
            budget=self.budget,
            etag=self.etag,
        )
