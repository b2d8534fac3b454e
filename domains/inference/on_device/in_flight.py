"""Units of a job that are enqueued on the device and not delivered yet."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from domains.inference.on_device.fence import Fence

AHEAD = 2
"""Units of a job that may be enqueued and unfinished: enough to keep a device busy, few enough to stop soon."""


@dataclass(frozen=True, eq=False)
class _Unit:
    fence: Fence
    deliver: Callable[[], None]


class InFlight:
    """Units of work in the order in which they were enqueued."""

    def __init__(self) -> None:
        self._units: deque[_Unit] = deque()

    def __len__(self) -> int:
        return len(self._units)

    @property
    def full(self) -> bool:
        """Whether no further unit may be enqueued."""
        return len(self._units) >= AHEAD

    def add(self, fence: Fence, deliver: Callable[[], None]) -> None:
        """Add an enqueued unit; `deliver` is called once, when its fence has passed."""
        self._units.append(_Unit(fence, deliver))

    def deliver_passed(self) -> None:
        """Deliver finished units, oldest first. Never waits."""
        while self._units and self._units[0].fence.passed():
            self._units.popleft().deliver()

    def wait_for_oldest(self) -> bool:
        """Wait for the oldest unit; False if there is none."""
        if self._units:
            self._units[0].fence.wait()
        return bool(self._units)

    def settle(self) -> None:
        """Wait for all units and deliver them, oldest first."""
        while self.wait_for_oldest():
            self.deliver_passed()

    def drop(self) -> None:
        """Wait for all units and deliver none."""
        for unit in self._units:
            unit.fence.wait()
        self._units.clear()
