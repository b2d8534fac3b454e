"""The state of a pool: its trend, what a busy worker told last, and what changes with a budget."""

from collections.abc import Iterable

import pytest

from domains.memory.measure import MemoryMeasure
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.claims import Claims
from domains.memory.pools.gauge import Gauge
from domains.memory.pools.pressure import Pressure, PressureChange, time_to_critical
from domains.memory.pools.state import TREND_S, PoolState
from tests.domains.memory.scripted_pool import ScriptedPool

BUDGET = MemoryBudget()


def a_state() -> PoolState:
    source = ScriptedPool()
    return PoolState(source, Gauge(source, Claims(), lambda measure: None), BUDGET, 60.0)


def used(time_s: float, used_bytes: int, held_bytes: int | None = None) -> MemoryMeasure:
    return MemoryMeasure(time_s=time_s, total_bytes=1000, used_bytes=used_bytes, held_bytes=held_bytes)


def forecast(samples: Iterable[tuple[float, int]]) -> float | None:
    """The forecast after measurements: time and used bytes."""
    state, measure = a_state(), None
    for time_s, used_bytes in samples:
        measure = used(time_s, used_bytes)
        state.note(measure)
    return state.view(measure, 0).time_to_critical_s


def test_a_trend_has_at_most_one_sample_a_second() -> None:
    assert forecast([(0, 100), (1, 200), (2, 300)]) == pytest.approx(6)
    assert forecast([(0, 100), (0.5, 150), (1, 200), (1.75, 275)]) is None, "two samples give no trend"
    assert forecast([(10, 100), (11, 200), (11.5, 999), (12, 300)]) == pytest.approx(6)


def test_a_trend_forgets_what_is_older_than_its_span() -> None:
    whole = [(0.0, 100), (TREND_S - 1, 400), (TREND_S, 500)]
    ratios = [(time_s, used_bytes / 1000) for time_s, used_bytes in whole]
    assert forecast(whole) == pytest.approx(time_to_critical(ratios, BUDGET))
    last = [(TREND_S, 400), (TREND_S + 1, 500), (TREND_S + 2, 600)]
    assert forecast([(0.0, 100), *last]) == forecast(last) is not None


def test_a_change_of_pressure_is_told_once_and_not_for_a_pool_that_begins_low() -> None:
    state = a_state()
    assert state.note(used(0, 100)) is None
    assert state.note(used(1, 800)) == PressureChange(
        pool_id="sim-0", previous=Pressure.LOW, current=Pressure.WARNING, time_s=1
    )
    assert state.note(used(2, 810)) is None
    full = a_state()
    assert full.note(used(0, 990)) == PressureChange(
        pool_id="sim-0", previous=None, current=Pressure.EMERGENCY, time_s=0
    )
    assert full.note(MemoryMeasure(time_s=1)) is None
    assert full.pressure is None


def test_the_held_bytes_that_were_told_last_count_while_a_worker_is_busy() -> None:
    state = a_state()
    limited = MemoryBudget(limit_bytes=500)
    assert state.room_under(limited).budget_bytes == 500
    state.note(used(0, 300, held_bytes=200))
    state.note(used(1, 400))
    room = state.room_under(limited)
    assert (room.budget_bytes, room.pool_bytes) == (300, 600)
    state.note(used(2, 400, held_bytes=50))
    assert state.room_under(limited).budget_bytes == 450


def test_a_new_budget_has_a_new_etag_grades_anew_and_begins_a_new_trend() -> None:
    state = a_state()
    first = state.etag
    assert state.set_budget(MemoryBudget(headroom_bytes=1)) is None, "nothing was measured yet"
    second = state.etag
    for second_s in range(3):
        state.note(used(second_s, 500 + second_s))
    measure = used(3, 504)
    state.note(measure)
    assert state.view(measure, 0).time_to_critical_s is not None
    tight = MemoryBudget(headroom_bytes=400)
    change = state.set_budget(tight)
    assert change is not None
    assert (change.previous, change.current) == (Pressure.LOW, Pressure.WARNING)
    view = state.view(measure, 90)
    assert (view.time_to_critical_s, view.pressure, view.budget) == (None, Pressure.WARNING, tight)
    assert (view.available_bytes, view.reserved_bytes) == (6, 90)
    assert state.view(measure, 97).available_bytes == 0
    assert len({first, second, state.etag}) == 3


def test_a_pool_that_could_not_be_measured_has_no_figures_in_its_view() -> None:
    state = a_state()
    state.note(used(0, 900))
    view = state.view(None, 5)
    assert (view.available_bytes, view.pressure, view.time_to_critical_s, view.reserved_bytes) == (None, None, None, 5)
    assert view.measure == MemoryMeasure(time_s=view.measure.time_s)
    assert view.measure.time_s > 1e9
