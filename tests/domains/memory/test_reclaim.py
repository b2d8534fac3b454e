"""Clean-ups: the mildest first, the longest unused first, and a report that says what really happened."""

import asyncio
import time
from typing import Any

import pytest

from domains.errors import DeviceOpsError, ErrorReason, InvalidRequest, Unavailable
from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.memory.pools import reclaiming
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.pool import PoolKind
from domains.memory.pools.pressure import Pressure
from domains.memory.pools.reclaim import IdleModel, ReclaimAsk, ReclaimLevel, ReclaimReport, cheapest, missing_bytes
from domains.memory.pools.reclaiming import AGAIN_AFTER_S, Reclaiming
from tests.domains.memory.scripted_pool import Bench, ScriptedPool, ScriptedReclaimer


class ReclaimBench(Bench):
    """A pool of 1000 with caches, models and jobs."""

    def __init__(self, **budget: int) -> None:
        super().__init__(1000, **budget)
        self.reclaimer = ScriptedReclaimer(self.source)
        self.reclaiming = Reclaiming(self.pools, self.reclaimer)
        self.source.cached = 50
        self.reclaimer.load("young", 100, 400)
        self.reclaimer.load("old", 100, 4000)
        self.reclaimer.load("pinned", 100, 9000, pinned=True)
        self.reclaimer.load("busy", 100, 9000, in_use=True)
        self.source.jobs.update({"job-4": 60, "job-1": 70})

    async def reclaim(self, **fields: object) -> ReclaimReport:
        return await self.reclaiming.reclaim("sim:0", ReclaimAsk(**fields))  # pyright: ignore[reportArgumentType]  # by name


def done(report: ReclaimReport) -> list[tuple[str, str, int | None]]:
    return [(step.action, step.owner.id, step.freed_bytes) for step in report.steps]


async def test_it_stops_as_soon_as_the_target_is_met() -> None:
    bench = ReclaimBench()
    report = await bench.reclaim(free_bytes=120)
    assert done(report) == [("empty_cache", "allocator", 50), ("unload", "old", 100)]
    assert report.target_met
    assert report.after is not None
    assert (report.before.measure.used_bytes, report.after.measure.used_bytes) == (580, 430)


async def test_pinned_used_and_kept_models_stay() -> None:
    bench = ReclaimBench()
    report = await bench.reclaim(keep_ids=("old",))
    assert done(report) == [("empty_cache", "allocator", 50), ("unload", "young", 100)]
    assert set(bench.source.models) == {"old", "pinned", "busy"}


async def test_a_target_out_of_reach_is_not_called_met() -> None:
    bench = ReclaimBench()
    report = await bench.reclaim(free_bytes=251)
    assert not report.target_met
    assert len(report.steps) == 3


async def test_neither_a_clean_up_nor_its_steps_tell_more_time_than_passed() -> None:
    bench, begin = ReclaimBench(), time.monotonic()
    report = await bench.reclaim(free_bytes=120)
    passed_s = time.monotonic() - begin
    assert 0 < sum(step.duration_s or 0.0 for step in report.steps) <= report.duration_s <= passed_s


async def test_a_ratio_is_a_target_too() -> None:
    bench = ReclaimBench()
    report = await bench.reclaim(used_ratio=0.53)
    assert done(report) == [("empty_cache", "allocator", 50)]
    assert report.target_met


async def test_emergency_interrupts_the_least_urgent_job_first() -> None:
    bench = ReclaimBench()
    report = await bench.reclaim(free_bytes=300, max_level=ReclaimLevel.EMERGENCY)
    assert [step.action for step in report.steps] == ["empty_cache", "unload", "unload", "compact", "interrupt"]
    assert [step.failure for step in report.steps] == [None] * 5
    assert report.steps[3].owner == MemoryOwner(kind=OwnerKind.UNATTRIBUTED, live_bytes=0)
    assert bench.source.jobs == {"job-4": 60}


async def test_spent_blobs_go_first_and_one_that_cannot_be_freed_is_listed() -> None:
    bench = ReclaimBench()
    bench.reclaimer.spent = [
        MemoryOwner(kind=OwnerKind.BLOB, live_bytes=30),
        MemoryOwner(kind=OwnerKind.BLOB, id="b-1", live_bytes=5),
    ]
    bench.reclaimer.failures["collect b-1"] = [DeviceOpsError("the disk says no")] * 2
    report = await bench.reclaim(max_level=ReclaimLevel.CACHES)
    assert [(step.action, step.owner.id) for step in report.steps] == [
        ("collect", ""),
        ("collect", "b-1"),
        ("empty_cache", "allocator"),
    ]
    assert [step.failure is None for step in report.steps] == [True, False, True]
    assert not report.target_met


async def test_a_disk_has_blobs_and_nothing_else_to_give_back() -> None:
    bench = ReclaimBench()
    disk = ScriptedPool(1000, "disk", PoolKind.DISK)
    bench.pools.add(disk)
    for spent, actions in ([], []), ([MemoryOwner(kind=OwnerKind.BLOB, live_bytes=30)], ["collect"]):
        bench.reclaimer.spent = spent
        report = await bench.reclaiming.reclaim("disk", ReclaimAsk(max_level=ReclaimLevel.COMPACT))
        assert [step.action for step in report.steps] == actions
    disk.others = 850
    # Full, and nothing to collect: the clean-up that comes by itself finds nothing to do.
    bench.reclaimer.spent, bench.reclaimer.calls = [], []
    told: list[ReclaimReport] = []
    bench.reclaiming.on_reclaimed.append(told.append)
    await bench.pools.measure("disk")
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))
    assert (told, bench.reclaimer.calls) == ([], [])


async def test_a_plan_tells_what_it_expects_to_free_and_does_nothing() -> None:
    bench = ReclaimBench()
    ask = ReclaimAsk(free_bytes=120, max_level=ReclaimLevel.EMERGENCY)
    report = await bench.reclaiming.reclaim("sim-0", ask, validate_only=True)
    assert done(report) == [("empty_cache", "allocator", 50), ("unload", "old", 100)]
    assert (report.target_met, report.after, bench.reclaimer.calls) == (True, None, [])
    far = await bench.reclaiming.reclaim("sim-0", ReclaimAsk(free_bytes=900), validate_only=True)
    assert not far.target_met


async def test_a_failed_step_is_tried_once_more() -> None:
    bench = ReclaimBench()
    bench.reclaimer.failures["unload old"] = [DeviceOpsError("busy", ErrorReason.DRIVER_ERROR)]
    report = await bench.reclaim(free_bytes=150)
    assert [step.failure for step in report.steps] == [None, None]
    assert bench.reclaimer.calls.count("unload old") == 2


async def test_a_step_that_fails_twice_is_listed_and_the_next_one_taken() -> None:
    bench = ReclaimBench()
    bench.reclaimer.failures["unload old"] = [RuntimeError("secret text")] * 2
    report = await bench.reclaim(free_bytes=150)
    _, failed, after = report.steps
    assert failed.failure is not None
    assert (failed.failure.reason, failed.freed_bytes) == (ErrorReason.INVARIANT_BROKEN, 0)
    assert "secret" not in failed.failure.message
    assert (after.owner.id, after.failure, report.target_met) == ("young", None, True)


async def test_a_restarting_worker_fails_the_call_not_each_step() -> None:
    bench = ReclaimBench()
    bench.reclaimer.failures["empty_caches"] = [Unavailable("again soon", ErrorReason.WORKER_RESTARTING)]
    with pytest.raises(Unavailable):
        await bench.reclaim(free_bytes=10)


class StuckReclaimer(ScriptedReclaimer):
    """Never comes back from unloading."""

    async def unload(self, loaded_model_id: str) -> None:
        await asyncio.Event().wait()


async def test_it_ends_when_its_time_is_over() -> None:
    bench = ReclaimBench()
    stuck = StuckReclaimer(bench.source)
    stuck.idle = bench.reclaimer.idle
    report = await Reclaiming(bench.pools, stuck).reclaim("sim-0", ReclaimAsk(max_s=0.1))
    assert report.steps[-1].failure is not None
    assert report.steps[-1].failure.reason is ErrorReason.RUN_TIMEOUT
    assert len(report.steps) == 2
    assert not report.target_met


async def test_caches_go_by_themselves_from_warning_and_idle_models_from_critical() -> None:
    bench = ReclaimBench()
    told: asyncio.Queue[ReclaimReport] = asyncio.Queue()
    bench.reclaiming.on_reclaimed.append(told.put_nowait)
    bench.source.others = 240
    await bench.pools.measure("sim-0")
    report = await asyncio.wait_for(told.get(), 5)
    assert done(report) == [("empty_cache", "allocator", 50)]
    bench.source.others = 400
    await bench.pools.measure("sim-0")
    report = await asyncio.wait_for(told.get(), 5)
    assert done(report) == [("unload", "old", 100)]
    assert (await bench.pools.view("sim-0")).pressure is Pressure.WARNING


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


async def test_a_clean_up_comes_again_after_a_while_or_at_a_higher_level_or_after_a_fall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, clock, told = ReclaimBench(), Clock(), list[ReclaimReport]()
    monkeypatch.setattr(reclaiming, "time", clock)
    bench.reclaiming.on_reclaimed.append(told.append)

    async def cleaned(used: int) -> int:
        """Clean-ups after a measurement of a pool with this use, 50 bytes of it cache."""
        bench.source.others, bench.source.cached = used - bench.source.live - 50, 50
        told.clear()
        await bench.pools.measure("sim-0")
        for _ in range(50):
            await asyncio.sleep(0)
        return len(told)

    warning, critical, low = 820, 920, 700
    assert await cleaned(warning) == 1
    clock.at += AGAIN_AFTER_S - 0.1
    assert await cleaned(warning) == 0
    clock.at += 0.1
    assert await cleaned(warning) == 1
    assert await cleaned(critical) == 1
    assert await cleaned(critical) == 0
    assert await cleaned(low) == 0
    assert await cleaned(warning) == 1


async def test_no_clean_up_begins_by_itself_while_another_one_or_a_budget_is_under_way() -> None:
    bench = ReclaimBench()
    bench.source.others = 240
    async with bench.pools.get("sim-0").changing:
        await bench.pools.measure("sim-0")
        await asyncio.sleep(0)
    assert bench.reclaimer.calls == []


class HastyReclaimer(ScriptedReclaimer):
    """Fails to unload a model at first, after so much time."""

    def __init__(self, pool: ScriptedPool, clock: Clock, takes_s: float) -> None:
        super().__init__(pool)
        self.clock = clock
        self.takes_s = takes_s

    async def unload(self, loaded_model_id: str) -> None:
        self.calls.append(loaded_model_id)
        if self.calls.count(loaded_model_id) == 1:
            self.clock.at += self.takes_s
            raise DeviceOpsError("busy", ErrorReason.DRIVER_ERROR)
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.parametrize(("takes_s", "failed"), [(29.0, None), (31.0, ErrorReason.RUN_TIMEOUT)])
async def test_a_second_try_has_the_time_that_the_first_one_left(
    monkeypatch: pytest.MonkeyPatch, takes_s: float, failed: ErrorReason | None
) -> None:
    bench, clock = Bench(1000), Clock()
    monkeypatch.setattr(reclaiming, "time", clock)
    hasty = HastyReclaimer(bench.source, clock, takes_s)
    hasty.load("model", 100)
    report = await Reclaiming(bench.pools, hasty).reclaim("sim-0", ReclaimAsk(max_s=30.0))
    (step,) = [step for step in report.steps if step.action == "unload"]
    assert (step.failure and step.failure.reason, step.duration_s) == (failed, takes_s)
    assert (hasty.calls.count("model"), report.duration_s) == (2, takes_s)


@pytest.mark.parametrize(
    ("target", "missing", "steps"),
    [
        ({"free_bytes": 0}, 0, 0),
        ({"free_bytes": 50}, 50, 1),
        ({"free_bytes": 51}, 51, 2),
        ({"used_ratio": 0.58}, 0, 0),
        ({"used_ratio": 0.6}, 0, 0),
        ({"used_ratio": 0.53}, 50, 1),
        ({"used_ratio": 0.529}, 51, 2),
        ({}, None, 3),
    ],
)
async def test_a_plan_ends_with_the_step_that_reaches_its_target(
    target: dict[str, Any], missing: int | None, steps: int
) -> None:
    bench, asked = ReclaimBench(), ReclaimAsk(**target)
    report = await bench.reclaiming.reclaim("sim-0", asked, validate_only=True)
    assert missing_bytes(asked, report.before.measure) == missing
    assert (len(report.steps), report.target_met, report.after) == (steps, True, None)
    assert bench.reclaimer.calls == []


def test_a_ratio_of_what_is_not_measured_lacks_nothing_that_is_known() -> None:
    asked = ReclaimAsk(used_ratio=0.5)
    for used, total in ((None, None), (5, None), (None, 5)):
        assert missing_bytes(asked, MemoryMeasure(time_s=0, used_bytes=used, total_bytes=total)) is None
    assert missing_bytes(ReclaimAsk(free_bytes=3), MemoryMeasure(time_s=0)) == 3


async def test_a_budget_may_forbid_it() -> None:
    bench = ReclaimBench()
    bench.pools.set_budget("sim-0", MemoryBudget(automatic_reclaim=False))
    bench.source.others = 400
    await bench.pools.measure("sim-0")
    await asyncio.sleep(0)
    assert bench.reclaimer.calls == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"free_bytes": -1}, {"free_bytes"}),
        ({"used_ratio": 1.1}, {"used_ratio"}),
        ({"used_ratio": float("nan")}, {"used_ratio"}),
        ({"max_s": 0.05}, {"max_duration"}),
        ({"max_s": 601.0, "free_bytes": -(2**63)}, {"max_duration", "free_bytes"}),
    ],
)
def test_impossible_requests_are_refused_all_at_once(fields: dict[str, float], named: set[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ReclaimAsk(**fields)  # pyright: ignore[reportArgumentType]  # wrong on purpose
    assert {violation.field for violation in caught.value.violations} == named


def unused(name: str, size: int, idle_s: float, load_s: float | None = None) -> IdleModel:
    return IdleModel(id=name, bytes=size, idle_s=idle_s, load_s=load_s)


@pytest.mark.parametrize(
    ("models", "need", "go"),
    [
        ([unused("young", 10, 10), unused("old", 10, 20)], 5, ["old"]),
        ([unused("young", 10, 10), unused("old", 10, 20)], 11, ["old", "young"]),
        ([unused("quick", 10, 10, 1), unused("slow", 10, 20, 4)], 5, ["quick"]),
        ([unused("quick", 10, 10, 1), unused("slow", 10, 100, 4)], 5, ["slow"]),
        ([unused("small", 5, 30, 0.5), unused("large", 20, 20, 2)], 20, ["large"]),
        ([unused("small", 5, 30, 0.5), unused("large", 20, 20, 2)], 21, ["small", "large"]),
        ([unused("unknown", 10, 30), unused("known", 10, 20, 1)], 5, ["unknown"]),
        ([unused("all", 10, 1)], 11, ["all"]),
        ([unused("byte", 1, 10, 1), unused("two", 2, 10, 1.5)], 1, ["two"]),
        ([unused("nothing", 0, 10, 0.5), unused("byte", 1, 10, 1)], 1, ["byte"]),
        ([unused("now", 10, 0, 1), unused("later", 10, 0.5, 2)], 5, ["later"]),
        ([unused("first", 10, 0, 2), unused("second", 10, 0, 1)], 5, ["second"]),
    ],
)
def test_what_costs_least_to_bring_back_goes_first_and_no_more_than_needed(
    models: list[IdleModel], need: int, go: list[str]
) -> None:
    assert [model.id for model in cheapest(models, need)] == go


@pytest.mark.parametrize(
    ("budget", "left"),
    [
        ({"limit_bytes": 500}, 330),
        ({"limit_bytes": 560}, 430),
        ({"headroom_bytes": 450}, 430),
        ({"limit_bytes": 800}, 580),
    ],
)
async def test_an_automatic_clean_up_goes_below_the_threshold_of_pool_or_limit(
    budget: dict[str, int], left: int
) -> None:
    bench = ReclaimBench(**budget)
    bench.source.jobs.clear()
    bench.source.jobs["job-1"] = 130
    await bench.pools.measure("sim-0")
    for _ in range(200):
        await asyncio.sleep(0)
    held = bench.source.live + bench.source.cached
    assert held == left


async def test_room_for_work_that_cannot_run_otherwise_is_made_of_models_that_were_just_used() -> None:
    bench = ReclaimBench(idle_after_s=300)
    bench.reclaimer.load("just used", 100, 0.0)
    assert await bench.reclaiming.make_room("sim-0", 301) == ()
    assert set(bench.source.models) == {"young", "old", "pinned", "busy", "just used"}
    assert await bench.reclaiming.evict("sim-0", 300) == ()
    assert set(await bench.reclaiming.make_room("sim-0", 300)) == {"young", "old", "just used"}
    assert set(bench.source.models) == {"pinned", "busy"}
