"""Figures of a device over a day, in bounded memory: 2 s a step for an hour, 1 min for a day; about 2 MB a device.

A step holds the mean of figures that fluctuate (use, power, clocks), the maximum of those to watch (memory, temperatures,
fan) and the lowest power limit. Every figure counts its own measurements: a figure that the driver did not report has no
weight.
"""

from collections.abc import Callable, Mapping

import msgspec

from domains.device.sample import DeviceSample, ThrottleReason
from domains.rings import Rings

STEP_S = 2
"""The finest step: every device is sampled this often."""
_RINGS = ((STEP_S, 1830), (60, 1450))
"""Steps for an hour and for a day, with a margin."""

Folds = Callable[[float, int, float, int], float]
"""Combines value and count of the present steps with value and count of the new one."""


def _mean(value: float, count: int, other: float, others: int) -> float:
    return (value * count + other * others) / (count + others)


def _highest(value: float, count: int, other: float, others: int) -> float:
    return max(value, other)


def _lowest(value: float, count: int, other: float, others: int) -> float:
    return min(value, other)


FIGURES: Mapping[str, Folds] = {
    "utilization_ratio": _mean,
    "memory_activity_ratio": _mean,
    "used_memory_bytes": _highest,
    "temperature_celsius": _highest,
    "memory_temperature_celsius": _highest,
    "power_watts": _mean,
    "power_limit_watts": _lowest,
    "clock_mhz": _mean,
    "memory_clock_mhz": _mean,
    "fan_speed_fraction": _highest,
}
"""Names as in DeviceSample and in the contract's DeviceHistorySample."""
_FOLDS = tuple(FIGURES.values())


class DeviceStep(msgspec.Struct, kw_only=True):
    """Figures of a device in one step."""

    time_s: float
    """Unix time of the step's start."""
    sample_count: int = 0
    """Number of measurements. 0: there are none, and all figures are absent."""
    values: list[float | None] = msgspec.field(default_factory=lambda: [None] * len(FIGURES))
    """In the order of FIGURES. None: not measured."""
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * len(FIGURES))
    """Number of measurements behind each value that is there."""
    throttle_reasons: frozenset[ThrottleReason] = frozenset()
    """All throttle reasons that applied at any time in the step."""

    def fold(self, other: "DeviceStep") -> None:
        """The union of two steps."""
        self.sample_count += other.sample_count
        self.throttle_reasons |= other.throttle_reasons
        for place, fold in enumerate(_FOLDS):
            mine, theirs = self.values[place], other.values[place]
            if theirs is None:
                continue
            count = self.counts[place]
            self.values[place] = theirs if mine is None else fold(mine, count, theirs, other.counts[place])
            self.counts[place] = count + other.counts[place]

    def figures(self) -> dict[str, float]:
        """Measured figures by name."""
        named = zip(FIGURES, self.values, strict=True)
        return {name: value for name, value in named if value is not None}


class DeviceHistoryView(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a history."""

    steps: tuple[DeviceStep, ...] = ()
    """Oldest first, without gaps, at most 1000."""
    step_s: float = STEP_S
    begin_s: float | None = None
    """Unix time of the first measurement since the server started. None: there is none."""
    total_memory_bytes: int | None = None
    """The newest measurement."""


class DeviceHistory:
    """History of one device."""

    def __init__(self) -> None:
        self._rings = Rings(_RINGS, _empty)
        self._begin_s: float | None = None
        self._newest_s: float | None = None
        self._total_memory_bytes: int | None = None

    def add(self, sample: DeviceSample) -> None:
        """Add a sample. A sample without figures (the driver did not answer, or reports none) is no measurement."""
        if not sample.telemetry:
            return
        self._begin_s = sample.time_s if self._begin_s is None else self._begin_s
        self._newest_s = sample.time_s
        self._total_memory_bytes = sample.total_memory_bytes or self._total_memory_bytes
        values = [getattr(sample, name) for name in FIGURES]
        self._rings.add(
            DeviceStep(
                time_s=sample.time_s,
                sample_count=1,
                values=values,
                counts=[1] * len(values),
                throttle_reasons=frozenset(sample.throttle_reasons),
            )
        )

    def query(self, start_s: float | None, end_s: float, step_s: float | None = None) -> DeviceHistoryView:
        """Steps from start to end, of about this length. `start_s` None: an hour before the end."""
        span = self._rings.query(end_s - 3600 if start_s is None else start_s, end_s, step_s)
        return DeviceHistoryView(
            steps=span.steps,
            step_s=span.step_s,
            begin_s=self._begin_s,
            total_memory_bytes=self._total_memory_bytes,
        )

    def lacks(self, now_s: float) -> bool:
        """Whether the step of this moment has no measurement yet."""
        return self._newest_s is None or now_s // STEP_S != self._newest_s // STEP_S


def _empty(time_s: float) -> DeviceStep:
    return DeviceStep(time_s=time_s)
