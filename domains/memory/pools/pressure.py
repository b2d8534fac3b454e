"""How scarce a pool's memory is, and when it will be scarcer."""

import math
from collections.abc import Sequence
from enum import IntEnum

import msgspec

from domains.memory.measure import MemoryMeasure
from domains.memory.pools.budget import MemoryBudget

HYSTERESIS = 0.05
"""A level is left only when the use is this far below its threshold, so that it does not flutter."""
HORIZON_S = 24 * 3600.0
"""A rise that would need longer than this is none."""
MIN_TREND_SAMPLES = 3


class Pressure(IntEnum):
    """From plenty to nearly nothing; the numbers are those of the contract."""

    LOW = 1
    WARNING = 2
    CRITICAL = 3
    EMERGENCY = 4


class PressureChange(msgspec.Struct, frozen=True, kw_only=True):
    """The pressure in a pool went from one level to another."""

    pool_id: str
    previous: Pressure | None
    """None: it could not be measured before."""
    current: Pressure
    time_s: float
    """Unix time."""


def use_ratio(measure: MemoryMeasure, budget: MemoryBudget) -> float | None:
    """Use as share of what may be used: of the pool by all, or of the limit by us, whichever is worse.

    None: neither can be measured.
    """
    shares: list[float] = []
    if measure.total_bytes is not None and measure.used_bytes is not None:
        shares.append(_share(measure.used_bytes, measure.total_bytes - budget.headroom_bytes))
    if budget.limit_bytes is not None and measure.held_bytes is not None:
        shares.append(_share(measure.held_bytes, budget.limit_bytes))
    return max(shares, default=None)


def _share(part: int, whole: int) -> float:
    if part <= 0:
        return 0.0
    return part / whole if whole > 0 else math.inf


def pressure_after(previous: Pressure | None, ratio: float, budget: MemoryBudget) -> Pressure:
    """The level at this use, when it was `previous` before."""
    rising = _highest(ratio, budget, 0.0)
    if previous is None or rising >= previous:
        return rising
    return min(previous, _highest(ratio, budget, HYSTERESIS))


def _highest(ratio: float, budget: MemoryBudget, slack: float) -> Pressure:
    for level, threshold in (
        (Pressure.EMERGENCY, budget.emergency_ratio),
        (Pressure.CRITICAL, budget.critical_ratio),
        (Pressure.WARNING, budget.warning_ratio),
    ):
        # A threshold below the slack is left when nothing is in use.
        if ratio >= threshold or (slack and ratio > max(0.0, threshold - slack)):
            return level
    return Pressure.LOW


def time_to_critical(samples: Sequence[tuple[float, float]], budget: MemoryBudget) -> float | None:
    """Seconds until CRITICAL if the use goes on rising as over these samples (time in s, use ratio), the oldest first.

    The trend is their least-squares line. None: it does not rise, is there already, or there are too few samples.
    """
    if len(samples) < MIN_TREND_SAMPLES or samples[-1][1] >= budget.critical_ratio:
        return None
    slope = _slope(samples)
    if slope <= 0:
        return None
    seconds = (budget.critical_ratio - samples[-1][1]) / slope
    return seconds if seconds <= HORIZON_S else None


def _slope(samples: Sequence[tuple[float, float]]) -> float:
    mean_time = math.fsum(time for time, _ in samples) / len(samples)
    mean_ratio = math.fsum(ratio for _, ratio in samples) / len(samples)
    spread = math.fsum((time - mean_time) ** 2 for time, _ in samples)
    if spread == 0:
        return 0.0
    return math.fsum((time - mean_time) * (ratio - mean_ratio) for time, ratio in samples) / spread
