"""The time that a simulated device takes: a queue of its own, as a GPU has one.

The CPU computes a unit at once; the unit counts as done when the scripted device would have done it. So the loop goes on
meanwhile: it takes orders, and cancels, as it does beside a real device.
"""

import threading
import time
from collections.abc import Callable

_LONGEST_WAIT_S = 0.02
"""A wait ends after this, so that orders that came in are looked at."""


class TimedFence:
    """See `Fence`. Passed when the device's clock says so."""

    def __init__(self, due_s: float, took_s: float, clock: Callable[[], float]) -> None:
        self._due_s = due_s
        self._took_s = took_s
        self._clock = clock

    def passed(self) -> bool:
        """Whether its time has come."""
        return self._clock() >= self._due_s

    def wait(self) -> None:
        """At most 20 ms."""
        rest = self._due_s - self._clock()
        if rest > 0:
            threading.Event().wait(min(rest, _LONGEST_WAIT_S))

    def device_s(self) -> float:
        """On the simulated device."""
        return self._took_s


class DeviceClock:
    """When the device will be done with all that it was given."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.speed = 1.0
        """Against the CPU, 0..1."""
        self._clock = clock
        self._busy_until_s = 0.0

    def now_s(self) -> float:
        """Seconds of an own count."""
        return self._clock()

    def fence(self, began_s: float) -> TimedFence:
        """A unit that the CPU began then and has just finished."""
        took_s = (self._clock() - began_s) / self.speed
        self._busy_until_s = max(began_s, self._busy_until_s) + took_s
        return TimedFence(self._busy_until_s, took_s, self._clock)
