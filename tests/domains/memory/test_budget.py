"""A budget refuses what cannot be meant, all at once, in the contract's names."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.errors import ErrorReason, InvalidRequest
from domains.memory.measure import MemoryMeasure
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.pool import room_of


def test_defaults_are_those_of_the_contract() -> None:
    budget = MemoryBudget()
    assert (budget.warning_ratio, budget.critical_ratio, budget.emergency_ratio) == (0.80, 0.90, 0.95)
    assert budget.limit_bytes is None
    assert budget.automatic_reclaim
    assert budget.idle_after_s == 300


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"limit_bytes": -1}, {"limit_bytes"}),
        ({"headroom_bytes": -(2**63)}, {"headroom_bytes"}),
        ({"warning_ratio": math.nan}, {"warning_ratio"}),
        ({"emergency_ratio": math.inf}, {"emergency_ratio"}),
        ({"critical_ratio": -0.1}, {"critical_ratio"}),
        ({"warning_ratio": -1e-9}, {"warning_ratio"}),
        ({"emergency_ratio": 1.0 + 1e-9}, {"emergency_ratio"}),
        ({"warning_ratio": 0.9}, {"warning_ratio"}),
        ({"warning_ratio": 0.99, "critical_ratio": 0.98}, {"warning_ratio", "critical_ratio"}),
        ({"idle_after_s": 0.5}, {"idle_after"}),
        ({"idle_after_s": 86401.0}, {"idle_after"}),
        (
            {"limit_bytes": -1, "warning_ratio": 2.0, "idle_after_s": -1.0},
            {"limit_bytes", "warning_ratio", "idle_after"},
        ),
    ],
)
def test_impossible_values_are_refused_all_at_once(fields: dict[str, float], named: set[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MemoryBudget(**fields)  # pyright: ignore[reportArgumentType]  # wrong on purpose
    assert caught.value.reason is ErrorReason.INVALID_FIELD
    assert {violation.field for violation in caught.value.violations} == {f"memory_budget.{name}" for name in named}


def test_what_is_just_within_the_limits_is_taken() -> None:
    budget = MemoryBudget(warning_ratio=0.0, emergency_ratio=1.0, limit_bytes=0, headroom_bytes=0, idle_after_s=1.0)
    assert (budget.warning_ratio, budget.emergency_ratio, budget.ceiling_bytes(None)) == (0.0, 1.0, 0)
    assert MemoryBudget(idle_after_s=86400.0).idle_after_s == 86400.0


def test_a_threshold_is_refused_with_the_one_that_it_reaches() -> None:
    with pytest.raises(InvalidRequest) as caught:
        MemoryBudget(warning_ratio=0.7, critical_ratio=0.7, emergency_ratio=0.6)
    assert [(each.message, each.allowed) for each in caught.value.violations] == [
        ("0.7 is not below critical_ratio (0.7)", "below critical_ratio"),
        ("0.7 is not below emergency_ratio (0.6)", "below emergency_ratio"),
    ]


@given(st.floats(), st.floats(), st.floats())
def test_thresholds_always_rise(warning: float, critical: float, emergency: float) -> None:
    rises = 0 <= warning < critical < emergency <= 1
    try:
        MemoryBudget(warning_ratio=warning, critical_ratio=critical, emergency_ratio=emergency)
    except InvalidRequest:
        assert not rises
    else:
        assert rises


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.one_of(st.none(), st.integers(0, 2**63)))
def test_the_ceiling_is_the_smaller_of_pool_and_limit(total: int, headroom: int, limit: int | None) -> None:
    ceiling = MemoryBudget(limit_bytes=limit, headroom_bytes=headroom).ceiling_bytes(total)
    assert ceiling == min(max(0, total - headroom), total if limit is None else limit)


def test_room_counts_the_cache_as_free_and_the_headroom_as_taken() -> None:
    measure = MemoryMeasure(time_s=0, total_bytes=100, used_bytes=70, held_bytes=50, live_bytes=30, cached_bytes=20)
    room = room_of(measure, MemoryBudget(limit_bytes=60, headroom_bytes=15))
    assert (room.pool_bytes, room.budget_bytes, room.free_bytes) == (35, 30, 30)


def test_what_cannot_be_measured_has_no_room_to_tell() -> None:
    assert room_of(MemoryMeasure(time_s=0), MemoryBudget()).free_bytes is None
