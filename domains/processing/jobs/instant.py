"""A moment, on both clocks of the process."""

import time
from typing import NamedTuple, Self


class Instant(NamedTuple):
    """A moment as a value, so that functions take the time as an argument."""

    unix_s: float
    """From `time.time`: for people and for the disk."""
    monotonic_s: float
    """From `time.monotonic`: for durations."""

    @classmethod
    def now(cls) -> Self:
        """The present moment."""
        return cls(time.time(), time.monotonic())
