"""Pressure: each level fires once on the way up and down, never flutters, and says when it will be critical."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.memory.measure import MemoryMeasure
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.pressure import HYSTERESIS, Pressure, pressure_after, time_to_critical, use_ratio

BUDGET = MemoryBudget()
THRESHOLD = {Pressure.WARNING: 0.80, Pressure.CRITICAL: 0.90, Pressure.EMERGENCY: 0.95}


def levels(ratios: list[float]) -> list[Pressure]:
    """The levels, one after the other, without repetitions."""
    seen = [Pressure.LOW]
    for ratio in ratios:
        level = pressure_after(seen[-1], ratio, BUDGET)
        if level is not seen[-1]:
            seen.append(level)
    return seen


def test_filling_step_by_step_fires_each_level_once() -> None:
    up = [step / 1000 for step in range(1001)]
    assert levels(up) == list(Pressure)
    assert levels(up + up[::-1]) == [*Pressure, Pressure.CRITICAL, Pressure.WARNING, Pressure.LOW]


@given(st.sampled_from(list(THRESHOLD)), st.lists(st.floats(-HYSTERESIS + 0.001, 0.0499), max_size=50))
def test_trembling_round_a_threshold_never_flutters(level: Pressure, trembling: list[float]) -> None:
    first = THRESHOLD[level]
    after = [pressure_after(level, min(first + by, 1.0), BUDGET) for by in trembling]
    assert all(each >= level for each in after)
    changes = levels([first, *(min(first + by, 1.0) for by in trembling)])
    assert changes == sorted(changes)


@given(st.lists(st.floats(0, 1.5), max_size=60))
def test_a_level_never_lies_below_its_threshold_nor_lingers_above_the_slack(ratios: list[float]) -> None:
    level: Pressure | None = None
    for ratio in ratios:
        level = pressure_after(level, ratio, BUDGET)
        for each, threshold in THRESHOLD.items():
            assert level >= each or ratio < threshold
            assert level < each or ratio > threshold - HYSTERESIS


def test_an_empty_pool_is_low_whatever_the_thresholds() -> None:
    tight = MemoryBudget(warning_ratio=0.01, critical_ratio=0.02, emergency_ratio=0.03)
    assert pressure_after(Pressure.EMERGENCY, 0.0, tight) is Pressure.LOW
    assert pressure_after(Pressure.LOW, 0.01, tight) is Pressure.WARNING


@pytest.mark.parametrize(
    ("used", "held", "limit", "headroom", "ratio"),
    [(50, 10, None, 0, 0.5), (50, 10, 20, 0, 0.5), (50, 18, 20, 0, 0.9), (45, 10, None, 50, 0.9), (0, 0, 0, 0, 0.0)],
)
def test_use_is_a_share_of_what_may_be_used(
    used: int, held: int, limit: int | None, headroom: int, ratio: float
) -> None:
    measure = MemoryMeasure(time_s=0, total_bytes=100, used_bytes=used, held_bytes=held)
    assert use_ratio(measure, MemoryBudget(limit_bytes=limit, headroom_bytes=headroom)) == ratio


def test_what_is_not_measured_has_no_ratio() -> None:
    for used, total in ((None, None), (5, None), (None, 5)):
        measure = MemoryMeasure(time_s=0, used_bytes=used, total_bytes=total)
        assert use_ratio(measure, MemoryBudget(limit_bytes=5)) is None


@pytest.mark.parametrize("level", list(THRESHOLD))
def test_a_level_holds_down_to_the_slack_below_its_threshold(level: Pressure) -> None:
    edge = THRESHOLD[level] - HYSTERESIS
    assert pressure_after(level, edge, BUDGET) == level - 1
    assert pressure_after(level, edge + 1e-9, BUDGET) is level


@pytest.mark.parametrize(("headroom", "limit"), [(100, None), (120, None), (0, 0)])
def test_use_of_what_may_not_be_used_at_all_is_beyond_every_threshold(headroom: int, limit: int | None) -> None:
    measure = MemoryMeasure(time_s=0, total_bytes=100, used_bytes=1, held_bytes=1)
    ratio = use_ratio(measure, MemoryBudget(headroom_bytes=headroom, limit_bytes=limit))
    assert ratio is not None
    assert ratio == math.inf
    assert pressure_after(None, ratio, BUDGET) is Pressure.EMERGENCY


def test_the_longest_forecast_is_a_day() -> None:
    budget = MemoryBudget(warning_ratio=0.5, critical_ratio=0.75, emergency_ratio=0.9)
    day_s = 24 * 3600.0
    assert time_to_critical([(0.0, 0.0), (day_s, 0.25), (2 * day_s, 0.5)], budget) == day_s
    assert time_to_critical([(0.0, 0.0), (day_s, 0.249), (2 * day_s, 0.498)], budget) is None


def test_a_steady_rise_tells_when_it_is_critical() -> None:
    rising = [(float(second), 0.5 + second * 0.001) for second in range(100)]
    assert time_to_critical(rising, BUDGET) == pytest.approx((0.9 - rising[-1][1]) / 0.001)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [(0.0, 0.5), (1.0, 0.6)],
        [(float(t), 0.5) for t in range(10)],
        [(float(t), 0.8 - t * 0.01) for t in range(10)],
        [(float(t), 0.85 + t * 0.01) for t in range(10)],
        [(0.0, 0.7), (1.0, 0.8), (2.0, 0.9)],
        [(5.0, 0.5), (5.0, 0.6), (5.0, 0.7)],
        [(float(t), 0.5 + t * 1e-9) for t in range(10)],
    ],
    ids=["none", "too few", "steady", "falling", "there already", "just there", "no time passed", "in a year"],
)
def test_no_rise_tells_nothing(samples: list[tuple[float, float]]) -> None:
    assert time_to_critical(samples, BUDGET) is None
