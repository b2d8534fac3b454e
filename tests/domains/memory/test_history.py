"""History: samples match what happened, memory stays bounded, and only what leaks is called a leak."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.memory.pools.advice import advice
from domains.memory.pools.advice import advice as advice_on
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.history import Allocation, PoolHistory, PoolSample
from domains.memory.pools.leaks import LeakSuspect, LeakWatch
from domains.memory.pools.pool import PoolKind, PoolView
from domains.memory.pools.pressure import Pressure
from domains.rings import MAX_SAMPLES

MIB = 1024 * 1024
BEGIN = 600_000.0


def measure(time_s: float, live: int = 0, **fields: int) -> MemoryMeasure:
    return MemoryMeasure(time_s=time_s, used_bytes=live + 5, held_bytes=live, live_bytes=live, **fields)  # pyright: ignore[reportArgumentType]  # counts only


def test_samples_match_the_load() -> None:
    history = PoolHistory()
    for second in range(100):
        history.add(measure(BEGIN + second, second * 10), second, Pressure.LOW)
    view = history.query(None, BEGIN + 99, 1)
    assert view.step_s == 1
    assert [(s.time_s, s.live_bytes, s.used_bytes, s.reserved_bytes) for s in view.samples] == [
        (BEGIN + second, second * 10, second * 10 + 5, second) for second in range(100)
    ]


def test_a_longer_step_keeps_the_worst() -> None:
    history = PoolHistory()
    for second, live in enumerate([1, 9, 2, 3, 4, 8]):
        history.add(measure(BEGIN + second, live), live, Pressure.WARNING if live == 9 else Pressure.LOW)
    view = history.query(BEGIN, BEGIN + 5, 3)
    assert [(s.live_bytes, s.reserved_bytes, s.pressure) for s in view.samples] == [
        (9, 9, Pressure.WARNING),
        (8, 8, Pressure.LOW),
    ]


def test_what_was_not_measured_is_absent_in_its_step() -> None:
    history = PoolHistory()
    history.add(measure(BEGIN, 3), 0, Pressure.LOW)
    history.add(measure(BEGIN + 3, 4), 0, Pressure.LOW)
    assert [s.live_bytes for s in history.query(None, BEGIN + 3).samples] == [3, None, None, 4]


def test_without_a_start_it_is_the_last_hour() -> None:
    history = PoolHistory()
    for before_s in (3601, 3600, 0):
        history.allocated(Allocation(time_s=BEGIN - before_s, took_s=0.0, size_bytes=1))
    timed = history.query(None, BEGIN).allocation_latency
    assert timed is not None
    assert timed.sample_count == 2


def test_an_empty_history_has_no_samples() -> None:
    view = PoolHistory().query(None, BEGIN)
    assert (view.samples, view.allocation_count, view.allocation_latency) == ((), None, None)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 400), st.floats(0, 100_000), st.one_of(st.none(), st.floats(1, 100_000)))
def test_never_more_than_a_thousand_samples(count: int, every: int, back: float, step: float | None) -> None:
    history = PoolHistory()
    for number in range(count):
        history.add(measure(BEGIN + number * every, number), 0, None)
    end = BEGIN + (count - 1) * every
    view = history.query(end - back, end, step)
    assert len(view.samples) <= MAX_SAMPLES
    assert view.samples[-1].time_s <= end
    assert max(s.live_bytes for s in view.samples if s.live_bytes is not None) == count - 1
    assert all(
        later.time_s - earlier.time_s == pytest.approx(view.step_s)
        for earlier, later in zip(view.samples, view.samples[1:], strict=False)
    )


def test_a_day_and_more_stays_bounded_and_the_peak_of_the_day_is_found() -> None:
    history = PoolHistory()
    day = 24 * 3600
    for second in range(0, 2 * day, 7):
        history.add(measure(BEGIN + second, 999 if 0 <= second - (day + 7000) < 7 else 5), 0, None)
    view = history.query(BEGIN, BEGIN + 2 * day)
    assert len(view.samples) <= MAX_SAMPLES
    assert view.samples[0].time_s >= BEGIN + day - 700
    assert max(s.live_bytes or 0 for s in view.samples) == 999


def test_the_last_hour_is_told_as_finely_as_a_thousand_samples_allow() -> None:
    history = PoolHistory()
    for second in range(3 * 3600):
        history.add(measure(BEGIN + second, second), 0, None)
    view = history.query(None, BEGIN + 3 * 3600 - 1)
    assert view.step_s == 4
    assert len(view.samples) == 901


def test_allocations_are_counted_over_a_workers_restart() -> None:
    history = PoolHistory()
    for second, (count, failed) in enumerate([(100, 2), (110, 2), (115, 3), (4, 1)]):
        history.add(measure(BEGIN + second, allocation_count=count, allocation_failure_count=failed), 0, None)
    view = history.query(BEGIN, BEGIN + 3)
    assert view.allocation_count == 10 + 5 + 4
    assert view.allocation_failure_count == 2 + 1 + 1


def test_a_step_that_counts_allocations_keeps_them_beside_one_that_does_not() -> None:
    one, other = PoolSample(time_s=0), PoolSample(time_s=1, allocations=5, failures=2)
    one.fold(other)
    assert (one.allocations, one.failures) == (5, 2)
    other.fold(PoolSample(time_s=2, allocations=3, failures=1))
    assert (other.allocations, other.failures) == (8, 3)
    other.fold(PoolSample(time_s=3))
    assert (other.allocations, other.failures) == (8, 3)


def test_a_count_that_stays_is_no_allocation_and_one_that_nobody_counts_is_absent() -> None:
    history = PoolHistory()
    for second in range(2):
        history.add(measure(BEGIN + second, allocation_count=7, allocation_failure_count=1), 0, None)
    view = history.query(BEGIN, BEGIN + 1)
    assert (view.allocation_count, view.allocation_failure_count) == (0, 1)
    other = PoolHistory()
    other.add(measure(BEGIN), 0, None)
    assert other.query(BEGIN, BEGIN).allocation_count is None


def test_timed_allocations_are_summed_up() -> None:
    history = PoolHistory()
    history.add(measure(BEGIN), 0, None)
    for place in range(4):
        history.allocated(Allocation(time_s=BEGIN + place, took_s=0.1 * place, size_bytes=100 * place))
    view = history.query(BEGIN, BEGIN + 2)
    assert view.mean_allocation_bytes == 100
    assert view.allocation_latency is not None
    assert view.allocation_latency.sample_count == 3


def owner(live: int, name: str = "m-1", kind: OwnerKind = OwnerKind.LOADED_MODEL) -> MemoryOwner:
    return MemoryOwner(kind=kind, id=name, live_bytes=live)


def watch(levels: list[int], *, window_s: float = 10, every_s: float = 1, work: list[int] | None = None) -> LeakWatch:
    leaks = LeakWatch(window_s=window_s, least_growth_bytes=10)
    for place, live in enumerate(levels):
        busy = {(OwnerKind.LOADED_MODEL, "m-1"): float(work[place])} if work else None
        leaks.add(place * every_s, [owner(live), owner(500, "steady")], busy)
    return leaks


def test_the_leaking_owner_is_named_and_the_steady_one_is_not() -> None:
    (suspect,) = watch([1000 + 3 * second for second in range(61)]).suspects()
    assert suspect.owner == owner(1180)
    assert suspect.growth_bytes_per_s == pytest.approx(3, rel=0.1)
    assert suspect.windows >= 4
    assert suspect.growing_s == pytest.approx(50, abs=11)


@pytest.mark.parametrize(
    ("peak", "rises", "named"), [(1040, 6, True), (1041, 6, False), (1041, 7, True), (1030, 5, False)]
)
def test_a_leak_is_named_from_four_windows_and_its_least_growth_on(peak: int, rises: int, named: bool) -> None:
    """Growth counts beyond the peak before it."""
    leaks = watch([peak, *(1000 + 10 * rise for rise in range(rises + 1))], every_s=10)
    assert bool(leaks.suspects()) is named


def test_growth_below_the_least_is_noise() -> None:
    assert watch([1000 + 9 * rise for rise in range(20)], every_s=10).suspects() == []
    (suspect,) = watch([1000 + 10 * rise for rise in range(20)], every_s=10).suspects()
    assert (suspect.growth_bytes_per_s, suspect.windows, suspect.growing_s) == (1.0, 17, 170.0)


def test_a_leak_below_a_jagged_use_is_named() -> None:
    (suspect,) = watch([1000 + 3 * second + (second % 5) * 100 for second in range(61)]).suspects()
    assert suspect.windows >= 4


def test_three_windows_are_not_enough() -> None:
    assert not watch([1000 + 3 * second for second in range(40)]).suspects()


def test_memory_that_grows_with_its_work_is_no_leak() -> None:
    levels = [1000 + 3 * second for second in range(100)]
    assert not watch(levels, work=[1 + second // 10 for second in range(100)]).suspects()
    assert watch(levels, work=[1] * 100).suspects()


def test_each_measurement_a_window_apart_ends_a_window() -> None:
    (suspect,) = watch([1000 + 30 * place for place in range(7)], every_s=10).suspects()
    assert (suspect.windows, suspect.growing_s) == (4, 40)


def test_memory_that_grows_after_its_work_ended_is_a_leak() -> None:
    leaks = LeakWatch(window_s=10, least_growth_bytes=10)
    for place in range(7):
        leaks.add(place * 10, [owner(1000 + 30 * place)], {(OwnerKind.LOADED_MODEL, "m-1"): 0.5} if place < 4 else None)
    (suspect,) = leaks.suspects()
    assert suspect.windows == 4


def test_of_too_many_owners_the_largest_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domains.memory.pools.leaks.MAX_OWNERS", 1)
    (suspect,) = watch([1000 + 3 * second for second in range(61)]).suspects()
    assert suspect.owner.id == "m-1"


@given(st.integers(0, 10_000), st.lists(st.integers(-4, 4), min_size=200, max_size=200))
def test_a_steady_owner_that_trembles_is_never_named(live: int, noise: list[int]) -> None:
    leaks = LeakWatch(window_s=10, least_growth_bytes=10)
    for second, by in enumerate(noise):
        leaks.add(float(second), [owner(live + 10 + by)])
        assert not leaks.suspects()


@settings(deadline=None)
@given(st.integers(2, 200), st.integers(1, 50), st.integers(0, 400))
def test_a_sawtooth_is_never_named_after_its_first_tooth(period: int, slope: int, offset: int) -> None:
    leaks = LeakWatch(window_s=10, least_growth_bytes=10)
    for second in range(800):
        leaks.add(float(second), [owner(1000 + slope * ((second + offset) % period))])
        # Within the very first tooth nobody can know that it will fall back.
        if second > 2 * period or period <= 30:
            assert not leaks.suspects()


def view(**fields: int) -> PoolView:
    measured = MemoryMeasure(
        time_s=0,
        total_bytes=fields.get("total", 1000) or None,
        used_bytes=850,
        held_bytes=800,
        cached_bytes=fields.get("cached"),
        fragmentation_ratio=fields["fragmented"] / 100 if "fragmented" in fields else None,
        owners=(MemoryOwner(kind=OwnerKind.LOADED_MODEL, id="m", live_bytes=fields.get("idle", 0), reclaimable=True),),
    )
    return PoolView(
        id="sim-0",
        kind=PoolKind.DEVICE,
        device_id="sim-0",
        measure=measured,
        reserved_bytes=fields.get("reserved", 0),
        available_bytes=0,
        peak_live_bytes=None,
        pressure=Pressure(fields["pressure"]) if fields.setdefault("pressure", 2) else None,
        time_to_critical_s=fields.get("critical_s"),
        budget=MemoryBudget(),
        etag="0",
    )


def test_advice_follows_the_measurements_most_helpful_first() -> None:
    empty = PoolHistory().query(None, BEGIN)
    told = advice(view(cached=200, idle=300, fragmented=60), empty, [])
    assert [each.expected_freed_bytes for each in told] == [300, 200, None]
    assert all("ReclaimMemory" in each.action for each in told)


def test_a_pool_with_plenty_needs_no_advice() -> None:
    assert advice(view(cached=200, idle=300, pressure=1), PoolHistory().query(None, BEGIN), []) == []


def actions(view: PoolView) -> list[str]:
    """The calls that are advised, in short."""
    told = advice(view, PoolHistory().query(None, BEGIN), [])
    return [next(name for name in ("CACHES", "IDLE", "COMPACT", "DeleteRes") if name in each.action) for each in told]


@pytest.mark.parametrize(
    ("fields", "advised"),
    [
        ({"cached": 100}, []),
        ({"cached": 101}, ["CACHES"]),
        ({"idle": 1}, ["IDLE"]),
        ({"reserved": 100}, []),
        ({"reserved": 101}, ["DeleteRes"]),
        ({"cached": 101, "fragmented": 49}, ["CACHES"]),
        ({"cached": 101, "fragmented": 50}, ["CACHES", "COMPACT"]),
        ({"cached": 100, "fragmented": 50}, []),
        ({"cached": 101, "fragmented": 50, "pressure": 1}, ["COMPACT"]),
        ({"idle": 1, "pressure": 1, "critical_s": 600}, ["IDLE"]),
        ({"idle": 1, "pressure": 1, "critical_s": 601}, []),
        ({"idle": 1, "pressure": 2, "critical_s": 601}, ["IDLE"]),
        ({"idle": 1, "pressure": 0, "critical_s": 600}, ["IDLE"]),
        ({"idle": 1, "pressure": 0}, []),
        ({"total": 0}, []),
        ({"total": 0, "cached": 1, "fragmented": 50, "reserved": 1}, ["CACHES", "DeleteRes", "COMPACT"]),
    ],
)
def test_an_action_is_advised_from_its_limit_on(fields: dict[str, int], advised: list[str]) -> None:
    assert actions(view(**fields)) == advised


def test_what_is_known_to_help_comes_before_what_is_not() -> None:
    owner = MemoryOwner(kind=OwnerKind.JOB, id="it", live_bytes=7)
    suspect = LeakSuspect(owner=owner, growth_bytes_per_s=2.0, growing_s=60, windows=4)
    told = advice(view(total=0, cached=1), PoolHistory().query(None, BEGIN), [suspect])
    assert [each.expected_freed_bytes for each in told] == [1, None]


def test_what_is_not_measured_is_no_reason() -> None:
    measured = MemoryMeasure(time_s=0, fragmentation_ratio=1.0)
    unknown = msgspec.structs.replace(view(), measure=measured, reserved_bytes=0)
    assert actions(unknown) == []
    assert actions(msgspec.structs.replace(unknown, reserved_bytes=1)) == ["DeleteRes"]


def test_failed_allocations_and_leaks_are_worth_a_word() -> None:
    history = PoolHistory()
    history.add(measure(BEGIN, allocation_failure_count=3), 0, None)
    suspects = watch([1000 + 3 * MIB * second for second in range(61)]).suspects()
    told = advice(view(pressure=1), history.query(BEGIN, BEGIN), suspects)
    assert any("m-1" in each.reason for each in told)
    assert any(each.reason.startswith("3 allocations") for each in told)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (OwnerKind.LOADED_MODEL, "Unload it with UnloadModel and load it again."),
        (OwnerKind.JOB, "Look at job it; CancelJob ends it."),
        (OwnerKind.BLOB, "Delete it with DeleteBlob if it is not needed."),
        (OwnerKind.CACHE, "Empty the caches with ReclaimMemory, level CACHES."),
        (OwnerKind.UNATTRIBUTED, "Restart the worker with ResetDevice when its jobs are done."),
    ],
)
def test_each_owner_that_grows_has_its_advice(kind: OwnerKind, advice: str) -> None:
    suspect = LeakSuspect(
        owner=MemoryOwner(kind=kind, id="it", live_bytes=7, reclaimable=kind is OwnerKind.CACHE),
        growth_bytes_per_s=2.0 * MIB,
        growing_s=60.4,
        windows=4,
    )
    (told,) = advice_on(view(pressure=1), PoolHistory().query(None, BEGIN), [suspect])
    assert told.action == advice
    assert told.reason == f"{kind.value} it grew by 2.0 MiB/s for 60 s while its work did not"
    assert told.expected_freed_bytes == (7 if kind is OwnerKind.CACHE else None)
