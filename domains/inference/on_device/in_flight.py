"""What a job has enqueued on the device and has not told yet."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from domains.inference.on_device.fence import Fence

AHEAD = 2
"""Units of a job that may be enqueued and not done: enough to keep a device busy, few enough to stop soon."""


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
        """Whether no more may be enqueued."""
        return len(self._units) >= AHEAD

    def add(self, fence: Fence, deliver: Callable[[], None]) -> None:
        """A unit was enqueued; `deliver` is called once, when its fence is passed."""
        self._units.append(_Unit(fence, deliver))

    def deliver_passed(self) -> None:
        """Deliver what is done, oldest first. Never waits."""
        while self._units and self._units[0].fence.passed():
            self._units.popleft().deliver()

    def wait_for_oldest(self) -> bool:
        """Wait until one more is done; False if there is none."""
        if self._units:
            self._units[0].fence.wait()
        return bool(self._units)

    def drop(self) -> None:
        """Wait for all, and deliver none."""
        for unit in self._units:
            unit.fence.wait()
        self._units.clear()
