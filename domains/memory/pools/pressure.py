"""The pressure level of a pool, and the forecast of CRITICAL."""

import math
from collections.abc import Sequence
from enum import IntEnum

import msgspec

from domains.memory.measure import MemoryMeasure
from domains.memory.pools.budget import MemoryBudget

HYSTERESIS = 0.05
"""The level falls only when the use is this far below its threshold."""
HORIZON_S = 24 * 3600.0
"""The longest forecast; a slower rise gives none."""
MIN_TREND_SAMPLES = 3


class Pressure(IntEnum):
    """The pressure levels, with the numbers of the contract."""

    LOW = 1
    WARNING = 2
    CRITICAL = 3
    EMERGENCY = 4


class PressureChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the pressure level of a pool."""

    pool_id: str
    previous: Pressure | None
    """None: not measured before."""
    current: Pressure
    time_s: float
    """Unix time."""


def use_ratio(measure: MemoryMeasure, budget: MemoryBudget) -> float | None:
    """The higher of two shares: the pool used by all processes, and the limit used by this server.

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
    """The level at this use ratio, after the level `previous`."""
    rising = _highest(ratio, budget, 0.0)
    return rising if previous is None else max(rising, min(previous, _highest(ratio, budget, HYSTERESIS)))


def _highest(ratio: float, budget: MemoryBudget, slack: float) -> Pressure:
    for level, threshold in (
        (Pressure.EMERGENCY, budget.emergency_ratio),
        (Pressure.CRITICAL, budget.critical_ratio),
        (Pressure.WARNING, budget.warning_ratio),
    ):
        # A threshold below the slack is left at a use of 0.
        if ratio >= threshold or (slack and ratio > max(0.0, threshold - slack)):
            return level
    return Pressure.LOW


def time_to_critical(samples: Sequence[tuple[float, float]], budget: MemoryBudget) -> float | None:
    """Seconds until CRITICAL by the trend of these samples (time in s, use ratio), oldest first.

    The trend is their least-squares line. None: it does not rise, CRITICAL is reached, or there are too few samples.
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
    spread = math.fsum((time - mean_time) ** 2 for time, _ in samples)
    if spread == 0:
        return 0.0
    # The mean ratio is not subtracted: its products sum to 0.
    return math.fsum((time - mean_time) * ratio for time, ratio in samples) / spread
