"""Pools: measured when asked, named as asked, graded once a change, and budgets that are obeyed."""

import asyncio
import errno

import pytest

from domains.errors import DeviceOpsError, ErrorReason, InternalError, NotFound, NotSupported, Unavailable
from domains.memory.blobs.blob import Blob, BlobTier
from domains.memory.blobs.host_memory import HostBytes
from domains.memory.measure import MemoryMeasure
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.budgets import Budgets
from domains.memory.pools.pool import PoolKind, Room, no_room
from domains.memory.pools.pools import Pools
from domains.memory.pools.pressure import Pressure, PressureChange
from domains.memory.pools.reclaiming import Reclaiming
from domains.memory.pools.reservation import Priority, ReservationAsk, ReservationState, ReservationWanted
from domains.memory.pools.reservation_queue import ReservationQueue
from tests.domains.memory.scripted_pool import Bench, ScriptedPool, ScriptedReclaimer


class BudgetBench(Bench):
    """With models to evict."""

    def __init__(self, total: int = 1000) -> None:
        super().__init__(total, idle_after_s=300)
        self.reclaimer = ScriptedReclaimer(self.source)
        self.reclaiming = Reclaiming(self.pools, self.reclaimer)
        evict, call_later = self.reclaiming.evict, self.clock.call_later
        self.queue = ReservationQueue(self.pools, self.reservations, evict, call_later=call_later)
        self.budgets = Budgets(
            self.pools, self.reservations, self.reclaiming, lambda pool_id, ceiling: [f"{pool_id} {ceiling}"]
        )


async def test_pools_are_found_by_id_and_alias_and_listed_devices_first() -> None:
    pools = Pools()
    host = ScriptedPool(pool_id="host", kind=PoolKind.HOST)
    host.aliases = ("cpu",)
    pools.add(host)
    pools.add(ScriptedPool())
    assert [view.id for view in await pools.list()] == ["sim-0", "host"]
    assert [view.id for view in await pools.list([PoolKind.HOST])] == ["host"]
    assert (await pools.view("cpu")).id == "host"
    assert (await pools.view("sim:0")).device_id == "sim-0"
    with pytest.raises(DeviceOpsError) as caught:
        await pools.view("gpu-1")
    assert caught.value.reason is ErrorReason.MEMORY_POOL_NOT_FOUND
    assert caught.value.facts["known"] == "sim-0, host"


@pytest.mark.parametrize(
    "why",
    [
        Unavailable("the worker of gpu-1 is still starting", ErrorReason.STARTING),
        NotSupported("gpu-1 needs torch with CUDA", ErrorReason.FEATURE_NOT_INSTALLED),
    ],
)
async def test_a_pool_whose_device_was_never_ready_says_why(why: DeviceOpsError) -> None:
    pools = Pools(why_absent={"gpu-1": why}.get)
    with pytest.raises(type(why)) as caught:
        await pools.view("gpu-1")
    assert caught.value is why
    with pytest.raises(NotFound):
        await pools.view("gpu-2")


async def test_memory_that_the_system_does_not_tell_is_absent_in_a_view_and_grants_nothing() -> None:
    bench = Bench(1000)
    bench.source.error = OSError(errno.EMFILE, "Too many open files", "/proc/meminfo")
    assert (await bench.pools.view("sim-0")).measure.total_bytes is None
    with pytest.raises(InternalError) as told:
        await bench.pools.measure("sim-0")
    assert told.value.reason is ErrorReason.DRIVER_ERROR
    assert told.value.message == "the system does not tell the memory of sim-0 (Too many open files); retry"


async def test_host_memory_that_the_system_does_not_tell_is_not_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error", "/proc/meminfo")

    monkeypatch.setattr("domains.memory.blobs.host_memory.host_memory", fail)
    blob = Blob(id="b", sha256="", size_bytes=1, media_type="", create_time_s=0.0, tier=BlobTier.HOST)
    with pytest.raises(InternalError) as told:
        await HostBytes().allocate(blob, 1)
    assert told.value.reason is ErrorReason.DRIVER_ERROR


async def test_a_view_adds_claims_to_what_is_measured() -> None:
    bench = Bench(1000, headroom_bytes=100, limit_bytes=700)
    bench.source.others, bench.source.cached = 250, 50
    bench.source.models["m"] = 200
    await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=150))
    view = await bench.pools.view("sim-0")
    assert view.measure.used_bytes == 500
    assert view.reserved_bytes == 150
    # Pool: 1000 - 100 - (500 - 50) = 450. Budget: 700 - 200 = 500. The smaller, less the promise.
    assert view.available_bytes == 300
    assert view.pressure is Pressure.LOW


async def test_the_peak_stays_when_use_falls() -> None:
    bench = Bench()
    bench.source.models["m"] = 200
    await bench.pools.view("sim-0")
    bench.source.models.clear()
    assert (await bench.pools.view("sim-0")).peak_live_bytes == 200
    # What came and went between two measurements, the worker has seen.
    bench.source.peak = 350
    assert (await bench.pools.view("sim-0")).peak_live_bytes == 350
    bench.source.peak = 10
    assert (await bench.pools.view("sim-0")).peak_live_bytes == 350


async def test_what_cannot_be_measured_is_absent_not_zero() -> None:
    bench = Bench()
    await bench.pools.view("sim-0")
    bench.source.error = Unavailable("wedged", ErrorReason.WORKER_RESTARTING)
    view = await bench.pools.view("sim-0")
    assert (view.measure.used_bytes, view.available_bytes, view.pressure) == (None, None, None)
    with pytest.raises(DeviceOpsError) as caught:
        await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=1))
    assert caught.value.reason is ErrorReason.WORKER_RESTARTING


async def test_filling_step_by_step_tells_each_change_once() -> None:
    bench = Bench()
    told: list[PressureChange] = []
    bench.pools.on_pressure.append(told.append)
    for used in [*range(0, 1001, 10), *range(1000, -1, -10)]:
        bench.source.others = used
        await bench.pools.measure("sim-0")
    assert [change.current for change in told] == [
        Pressure.WARNING,
        Pressure.CRITICAL,
        Pressure.EMERGENCY,
        Pressure.CRITICAL,
        Pressure.WARNING,
        Pressure.LOW,
    ]
    assert bench.pools.changes.after(0) == told


async def test_a_rise_tells_when_it_is_critical() -> None:
    bench = Bench()
    for second in range(20):
        bench.source.time_s, bench.source.others = 1000.0 + second, 500 + 10 * second
        await bench.pools.measure("sim-0")
    view = await bench.pools.view("sim-0")
    assert view.time_to_critical_s == pytest.approx(21, abs=0.5)


class SlowPool(ScriptedPool):
    """Measures when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def measure(self) -> MemoryMeasure:
        before = await super().measure()
        await self.go.wait()
        return before


async def test_a_measurement_that_began_earlier_does_not_count() -> None:
    pools, slow = Pools(), SlowPool()
    pools.add(slow)
    first = asyncio.create_task(pools.measure("sim-0"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    slow.others = 700
    later = [asyncio.create_task(pools.measure("sim-0")) for _ in range(3)]
    await asyncio.sleep(0)
    slow.go.set()
    assert (await first).used_bytes == 0
    assert [(await each).used_bytes for each in later] == [700] * 3
    assert slow.measured == 2


async def test_sampling_feeds_the_history_until_it_is_stopped() -> None:
    bench = Bench()
    sampled = asyncio.Event()
    bench.pools.on_measured.append(lambda _: sampled.set() if bench.source.measured >= 3 else None)
    task = asyncio.create_task(bench.pools.keep_sampled(0.001))
    await asyncio.wait_for(sampled.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    history = bench.pools.get("sim-0").history.query(None, 1000)
    assert [sample.used_bytes for sample in history.samples] == [0]


async def test_the_end_of_sampling_ends_a_sample_that_waits_for_its_measurement() -> None:
    pools, source = Pools(), SlowPool()
    pools.add(source)
    sampling = asyncio.create_task(pools.keep_sampled())
    for _ in range(10):
        await asyncio.sleep(0)
    assert source.measured == 1
    sampling.cancel()
    await asyncio.gather(sampling, return_exceptions=True)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if "Pools._sample" in repr(task.get_coro())]
    source.go.set()


async def test_a_budget_that_fits_asks_nothing_of_anybody() -> None:
    bench = BudgetBench()
    before = await bench.pools.view("sim-0")
    change = await bench.budgets.set("sim:0", MemoryBudget(limit_bytes=500), etag=before.etag)
    assert change.impact.excess_bytes == 0
    assert change.view.budget.limit_bytes == 500
    assert change.view.etag != before.etag
    again = await bench.budgets.set("sim-0", MemoryBudget(limit_bytes=500))
    assert again.view.etag == change.view.etag


async def test_a_late_caller_hears_that_somebody_was_faster() -> None:
    bench = BudgetBench()
    before = await bench.pools.view("sim-0")
    await bench.budgets.set("sim-0", MemoryBudget(limit_bytes=500))
    for validate_only in (True, False):
        with pytest.raises(DeviceOpsError) as caught:
            await bench.budgets.set("sim-0", MemoryBudget(), etag=before.etag, validate_only=validate_only)
        assert caught.value.reason is ErrorReason.ETAG_MISMATCH


async def crowded() -> BudgetBench:
    """A pinned model, two idle ones, a busy one, and two reservations."""
    bench = BudgetBench()
    bench.reclaimer.load("pinned", 100, 9000, pinned=True)
    bench.reclaimer.load("old", 100, 2000)
    bench.reclaimer.load("young", 100, 500)
    bench.reclaimer.load("fresh", 100, 10)
    bench.reclaimer.load("busy", 100, 0, in_use=True)
    for size, priority in ((50, Priority.LOW), (60, Priority.HIGH)):
        await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=size, priority=priority))
    return bench


async def test_validate_only_tells_and_does_nothing() -> None:
    bench = await crowded()
    before = await bench.pools.view("sim-0")
    change = await bench.budgets.set("sim-0", MemoryBudget(limit_bytes=370), validate_only=True)
    assert change.impact.excess_bytes == 240
    assert change.impact.evicted_ids == ("old", "young")
    assert len(change.impact.preempted_ids) == 1
    assert change.impact.stranded_ids == ("sim-0 370",)
    assert change.impact.reclaimable_bytes == 250
    assert change.view == before
    assert bench.reclaimer.calls == []


async def test_what_a_budget_asks_is_done_and_no_more() -> None:
    bench = await crowded()
    change = await bench.budgets.set("sim-0", MemoryBudget(limit_bytes=370))
    assert bench.reclaimer.calls == ["unload old", "unload young", "empty_caches"]
    assert change.view.measure.held_bytes == 300
    assert change.view.reserved_bytes == 60
    ended = bench.reservations.list(ReservationWanted(states=(ReservationState.PREEMPTED,)))
    assert [(each.id,) for each in ended] == [change.impact.preempted_ids]
    assert ended[0].priority is Priority.LOW


async def test_a_budget_below_what_must_stay_is_refused_and_nothing_changes() -> None:
    bench = await crowded()
    before = await bench.pools.view("sim-0")
    with pytest.raises(DeviceOpsError) as caught:
        await bench.budgets.set("sim-0", MemoryBudget(limit_bytes=299))
    assert caught.value.reason is ErrorReason.BUDGET_EXCEEDED
    assert caught.value.facts["excess_bytes"] == "311"
    assert caught.value.facts["reclaimable_bytes"] == "310"
    assert caught.value.message == (
        "what must stay in memory pool sim-0 is 1 B more than the limit of 299 B; "
        "allow more, or end jobs and unload models first"
    )
    assert await bench.pools.view("sim-0") == before
    told = await bench.budgets.set("sim-0", MemoryBudget(limit_bytes=299), validate_only=True)
    assert told.impact.reclaimable_bytes < told.impact.excess_bytes


async def test_a_model_that_cannot_be_unloaded_leaves_the_old_budget_and_every_reservation() -> None:
    bench = await crowded()
    bench.reclaimer.failures["unload old"] = [DeviceOpsError("stuck", ErrorReason.DRIVER_ERROR)]
    with pytest.raises(DeviceOpsError):
        await bench.budgets.set("sim-0", MemoryBudget(limit_bytes=370))
    view = await bench.pools.view("sim-0")
    assert view.budget.limit_bytes is None
    assert view.reserved_bytes == 110


async def test_headroom_takes_the_ground_from_reservations_only() -> None:
    bench = await crowded()
    change = await bench.budgets.set("sim-0", MemoryBudget(headroom_bytes=420))
    assert len(change.impact.preempted_ids) == 1
    assert change.impact.excess_bytes == 0
    assert bench.reclaimer.calls == []


@pytest.mark.parametrize(
    ("limit", "silent", "calls"), [(149, False, ["empty_caches"]), (150, False, []), (149, True, [])]
)
async def test_caches_above_a_limit_are_emptied_where_models_and_jobs_fit(
    limit: int, silent: bool, calls: list[str]
) -> None:
    bench = BudgetBench()
    bench.reclaimer.load("fresh", 100, 10)
    bench.source.cached, bench.source.silent = 50, silent
    change = await bench.budgets.set("sim-0", MemoryBudget(limit_bytes=limit))
    assert (bench.reclaimer.calls, change.impact.excess_bytes) == (calls, 0)


@pytest.mark.parametrize(("headroom", "ended"), [(390, 0), (391, 1), (440, 1), (441, 2)])
async def test_headroom_ends_as_many_reservations_as_have_no_room_left(headroom: int, ended: int) -> None:
    bench = await crowded()
    change = await bench.budgets.set("sim-0", MemoryBudget(headroom_bytes=headroom))
    assert len(change.impact.preempted_ids) == ended
    smaller = await bench.budgets.set("sim-0", MemoryBudget(headroom_bytes=headroom - 10))
    assert smaller.impact.preempted_ids == (), "what had no room before has none to lose"


async def test_a_pool_that_cannot_be_measured_loses_no_room_by_headroom() -> None:
    bench = BudgetBench()
    bench.source.total = None
    await bench.budgets.set("sim-0", MemoryBudget(limit_bytes=100))
    await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=1))
    change = await bench.budgets.set("sim-0", MemoryBudget(limit_bytes=100, headroom_bytes=1000))
    assert (change.impact.preempted_ids, change.impact.stranded_ids) == ((), ("sim-0 100",))


async def test_eviction_makes_room_only_where_it_is_allowed_and_enough() -> None:
    bench = await crowded()
    for size, evict in ((500, False), (600, True)):
        with pytest.raises(DeviceOpsError):
            await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=size, allow_eviction=evict))
    assert bench.reclaimer.calls == []
    granted = await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=450, allow_eviction=True))
    assert granted.evicted_ids == ("old",)


@pytest.mark.parametrize(
    ("pool", "budget", "outstanding", "need", "reason", "available"),
    [
        (10, None, 3, 8, ErrorReason.DEVICE_OUT_OF_MEMORY, "7"),
        (10, None, 12, 1, ErrorReason.DEVICE_OUT_OF_MEMORY, "0"),
        (None, None, 0, 1, ErrorReason.DEVICE_OUT_OF_MEMORY, "0"),
        (10, 5, 0, 6, ErrorReason.BUDGET_EXCEEDED, "5"),
        (10, 5, 4, 6, ErrorReason.BUDGET_EXCEEDED, "1"),
        (10, 5, 5, 6, ErrorReason.DEVICE_OUT_OF_MEMORY, "0"),
        (10, 5, 0, 11, ErrorReason.DEVICE_OUT_OF_MEMORY, "5"),
        (None, 5, 0, 6, ErrorReason.DEVICE_OUT_OF_MEMORY, "5"),
    ],
)
def test_a_budget_is_at_fault_only_where_the_pool_has_room(
    pool: int | None, budget: int | None, outstanding: int, need: int, reason: ErrorReason, available: str
) -> None:
    refusal = no_room(ScriptedPool(), Room(pool_bytes=pool, budget_bytes=budget), outstanding, need)
    assert (refusal.reason, refusal.facts["available_bytes"]) == (reason, available)
    assert ("SetMemoryBudget" in refusal.message) is (reason is ErrorReason.BUDGET_EXCEEDED)
    assert (refusal.retry_after_s, "ceiling_bytes" in refusal.facts) == (5.0, False)


@pytest.mark.parametrize(("need", "retry_s"), [(10, 3.0), (11, None)])
def test_what_can_never_fit_is_not_to_be_tried_again(need: int, retry_s: float | None) -> None:
    refusal = no_room(ScriptedPool(), Room(pool_bytes=1, budget_bytes=None, ceiling_bytes=10), 0, need, 3.0)
    assert (refusal.retry_after_s, refusal.facts["ceiling_bytes"]) == (retry_s, "10")
    assert ("can never fit" in refusal.message) is (need > 10)


@pytest.mark.parametrize(
    ("need_bytes", "told"),
    [
        (3 * 2**20, "memory pool sim-0 has 2.0 MiB left, 3.0 MiB are needed; free some or ask for less"),
        (5 * 2**30, "5.0 GiB can never fit into memory pool sim-0 of 4.0 GiB; ask for less"),
    ],
)
def test_a_refusal_tells_people_units_and_programs_exact_bytes(need_bytes: int, told: str) -> None:
    room = Room(pool_bytes=2 * 2**20, budget_bytes=None, ceiling_bytes=4 * 2**30)
    refusal = no_room(ScriptedPool(), room, 0, need_bytes)
    assert refusal.message == told
    assert refusal.facts["needed_bytes"] == str(need_bytes)
