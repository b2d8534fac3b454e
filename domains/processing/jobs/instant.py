"""A moment, on both clocks of the process."""

import time
from typing import NamedTuple, Self


class Instant(NamedTuple):
    """So that what depends on the time is a function of it."""

    unix_s: float
    """`time.time`: for people and for the disk."""
    monotonic_s: float
    """`time.monotonic`: for durations."""

    @classmethod
    def now(cls) -> Self:
        """This one."""
        return cls(time.time(), time.monotonic())
