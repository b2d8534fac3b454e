"""The time of a simulated device: a queue of its own, like a GPU's.

The CPU computes a unit at once; the unit counts as finished when the scripted device would have finished it. Meanwhile
the loop goes on and takes orders and cancellations, as it does beside a real device.
"""

import threading
import time
from collections.abc import Callable

_LONGEST_WAIT_S = 0.02
"""A wait ends after this, so that new orders are read."""


class TimedFence:
    """See `Fence`. Passes by the device's clock."""

    def __init__(self, due_s: float, took_s: float, clock: Callable[[], float]) -> None:
        self._due_s = due_s
        self._took_s = took_s
        self._clock = clock

    def passed(self) -> bool:
        """Whether the unit's time is over."""
        return self._clock() >= self._due_s

    def wait(self) -> None:
        """Wait at most 20 ms."""
        rest = self._due_s - self._clock()
        if rest > 0:
            threading.Event().wait(min(rest, _LONGEST_WAIT_S))

    def device_s(self) -> float:
        """Seconds on the simulated device."""
        return self._took_s


class DeviceClock:
    """Tracks when the device will have finished all of its work."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.speed = 1.0
        """Speed relative to the CPU, 0..1."""
        self._clock = clock
        self._busy_until_s = 0.0

    def now_s(self) -> float:
        """Seconds on a monotonic clock."""
        return self._clock()

    def after(self, duration_s: float) -> TimedFence:
        """A fence that passes after a time, whatever the device computes meanwhile."""
        return TimedFence(self._clock() + duration_s, duration_s, self._clock)

    def fence(self, began_s: float) -> TimedFence:
        """A fence for a unit that the CPU began at `began_s` and has just finished."""
        took_s = (self._clock() - began_s) / self.speed
        self._busy_until_s = max(began_s, self._busy_until_s) + took_s
        return TimedFence(self._busy_until_s, took_s, self._clock)
