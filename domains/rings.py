"""Time series in bounded memory: rings of equal steps, fine ones for the last hour and coarse ones for a day.

Every measurement goes into every ring; measurements of one step are folded together. A query reads the finest ring that
still reaches back far enough.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

MAX_SAMPLES = 1000
"""Most steps of one answer."""


class Step(Protocol):
    """The measurements of one step of time."""

    time_s: float
    """Unix time at which the step began."""

    def fold(self, other: Any) -> None:
        """Merge another step of the same kind into this one."""
        ...


S = TypeVar("S", bound=Step)


class Span(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """A part of the rings' contents."""

    steps: tuple[S, ...]
    """Oldest first, one a step without gaps, at most 1000."""
    step_s: float


class _Ring(Generic[S]):
    """Equal steps; the oldest is dropped."""

    def __init__(self, step_s: int, length: int, empty: Callable[[float], S]) -> None:
        self.step_s = step_s
        self.steps: deque[S] = deque(maxlen=length)
        self._empty = empty

    def add(self, measured: S) -> None:
        begin = math.floor(measured.time_s / self.step_s) * self.step_s
        # After a clock was set back, measurements go into the newest step.
        if not self.steps or begin > self.steps[-1].time_s:
            self.steps.append(self._empty(begin))
        self.steps[-1].fold(measured)

    def reaches(self, start_s: float) -> bool:
        """Whether all steps since then are kept."""
        return len(self.steps) < (self.steps.maxlen or 0) or self.steps[0].time_s <= start_s


class Rings(Generic[S]):
    """The rings of one series."""

    def __init__(self, shapes: Sequence[tuple[int, int]], empty: Callable[[float], S]) -> None:
        """`shapes`: step in s and number of steps of each ring, the finest first. `empty`: makes a step without
        measurements that begins at a given time."""
        self._rings = [_Ring(step, length, empty) for step, length in shapes]
        self._empty = empty

    def add(self, measured: S) -> None:
        """Add a measurement at its `time_s`."""
        for ring in self._rings:
            ring.add(measured)

    def query(self, start_s: float, end_s: float, step_s: float | None = None) -> Span[S]:
        """Steps from start to end, of about this length: longer where there would be more than 1000.

        A start before the first sample counts as the first sample.
        """
        coarsest = self._rings[-1]
        oldest = coarsest.steps[0].time_s if coarsest.steps else end_s
        ring = next((ring for ring in self._rings if ring.reaches(start_s)), coarsest)
        found = [step for step in ring.steps if start_s - ring.step_s < step.time_s <= end_s]
        begin = max(start_s, found[0].time_s if found else oldest)
        length = _length(max(0.0, end_s - begin), step_s, ring.step_s)
        return Span(steps=self._folded(found, begin, end_s, length), step_s=length)

    def _folded(self, found: Sequence[S], begin_s: float, end_s: float, step_s: float) -> tuple[S, ...]:
        if not found:
            return ()
        count = min(MAX_SAMPLES, math.floor((end_s - begin_s) / step_s) + 1)
        steps = [self._empty(begin_s + place * step_s) for place in range(count)]
        for step in found:
            steps[min(count - 1, max(0, math.floor((step.time_s - begin_s) / step_s)))].fold(step)
        return tuple(steps)


def _length(span_s: float, asked_s: float | None, finest_s: int) -> float:
    """A multiple of the ring's step, so that each step falls into exactly one."""
    wanted = max(asked_s or 0.0, (span_s + 1) / MAX_SAMPLES, finest_s)
    return float(math.ceil(wanted / finest_s) * finest_s)
