"""The queue at one moment: what is in the way of each device, and rates and shares of the last ten minutes."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from msgspec.structs import replace

from domains.device.settings import DeviceSettings
from domains.device.workload import WorkloadMeter
from domains.errors import ErrorReason
from domains.processing.jobs.state import JobState
from domains.processing.lanes.overview import WINDOW_S, LaneView, QueueOverview
from tests.domains.device.hand_clock import HandClock
from tests.domains.processing.dispatch_bench import DispatchBench, a_device

DEVICE_ID = "gpu-1a2b3c4d"


class Seen(DispatchBench):
    """A device for two jobs, and its queue."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.is_full = False
        self.now_s = 0.0
        self.overview = QueueOverview(
            self.board, self.jobs, self.devices, self._held_back, self.draining, lambda: self.now_s
        )

    def _held_back(self, device_id: str, *, occupied: bool) -> bool:
        return self.is_full

    def seen(self) -> LaneView:
        return next(one for one in self.overview.now().lanes if one.device_id == DEVICE_ID)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Seen]:
    bench = Seen(tmp_path)
    yield bench
    await bench.close()


async def test_a_free_device_tells_its_slots_and_nothing_in_the_way(bench: Seen) -> None:
    lane = bench.seen()
    assert (lane.free_slots, lane.running, lane.depths, lane.blocked_by) == (2, (), (), None)


async def test_what_waits_is_told_by_priority_the_most_urgent_first(bench: Seen) -> None:
    running = [bench.submit(), bench.submit()]
    await bench.at_work(*running)
    assert bench.devices.get(DEVICE_ID).running == 2
    for priority in (1, 3, 3):
        bench.submit(priority=priority)
    lane = bench.seen()
    assert set(lane.running) == set(running)
    assert [(one.priority, one.queued, one.estimated_wait_s) for one in lane.depths] == [(3, 2, None), (1, 1, None)]
    assert lane.blocked_by is None


async def test_the_obstacle_is_told_where_something_waits(bench: Seen) -> None:
    bench.is_full = True
    assert bench.seen().blocked_by is None, "nothing waits"
    bench.submit()
    assert (bench.seen().blocked_by, bench.seen().free_slots) == (ErrorReason.DEVICE_OUT_OF_MEMORY, 0)
    bench.is_full = False
    bench.devices.set_settings(DEVICE_ID, DeviceSettings(enabled=False))
    assert bench.seen().blocked_by is ErrorReason.DEVICE_DISABLED
    bench.draining.begin()
    assert bench.seen().blocked_by is ErrorReason.DRAINING


async def test_rates_come_after_ten_minutes_and_forget_what_is_older(bench: Seen) -> None:
    job_id = bench.submit()
    await bench.at_work(job_id)
    assert bench.overview.now().arrivals_per_s is None
    bench.now_s = WINDOW_S
    bench.jobs.cancel(bench.submit())
    told = bench.overview.now()
    assert (told.arrivals_per_s, told.completions_per_s) == (2 / WINDOW_S, 1 / WINDOW_S)
    assert [(one.session_id, one.queued, one.running) for one in told.shares] == [("", 0, 1)]
    bench.now_s = 3 * WINDOW_S
    told = bench.overview.now()
    assert (told.arrivals_per_s, told.completions_per_s) == (0, 0)
    assert bench.job(job_id).state is JobState.RUNNING


async def test_a_new_job_waits_for_those_that_run_and_those_of_its_priority_or_above(bench: Seen) -> None:
    clock = HandClock()
    bench.board.meter = WorkloadMeter(clock.now)
    for past in ("a", "b", "c"):
        bench.board.meter.started(DEVICE_ID, past)
        clock.at += 10
        bench.board.meter.ended(DEVICE_ID, past, failed=False)
    running = [bench.submit(), bench.submit()]
    await bench.at_work(*running)
    for job_id in running:
        bench.board.meter.started(DEVICE_ID, job_id)
    for priority in (1, 3, 3):
        bench.submit(priority=priority)
    # Two at once: 10 s of each that runs and 10 s of each that comes first, halved.
    waits = [(one.priority, one.estimated_wait_s) for one in bench.seen().depths]
    assert waits == [(3, pytest.approx((20 + 20) / 2)), (1, pytest.approx((20 + 30) / 2))]


async def test_a_session_is_served_as_long_as_its_jobs_ran_and_not_while_they_waited(bench: Seen) -> None:
    ran, waits = bench.submit(session_id="ran"), bench.submit(session_id="waits")
    await bench.at_work(ran, waits)
    bench.jobs.cancel(bench.submit(session_id="waits"))
    assert [one.served_ratio for one in bench.overview.now().shares] == [None, None], "nothing has run to its end"
    await bench.finish(ran)
    again = bench.submit(session_id="ran")
    await bench.at_work(again)
    assert [(one.session_id, one.served_ratio) for one in bench.overview.now().shares] == [("ran", 1.0), ("waits", 0.0)]


async def test_what_any_device_takes_is_blocked_where_all_are(bench: Seen) -> None:
    def unbound() -> LaneView | None:
        return next((one for one in bench.overview.now().lanes if one.device_id == ""), None)

    bench.arrive("cuda:1", replace(a_device(), id="gpu-2", aliases=("cuda:1",)))
    bench.is_full = True
    bench.submit()
    blocked = unbound()
    assert blocked is not None
    assert blocked.blocked_by is ErrorReason.DEVICE_OUT_OF_MEMORY
    bench.is_full = False
    bench.devices.set_settings(DEVICE_ID, DeviceSettings(enabled=False))
    free = unbound()
    assert free is None or free.blocked_by is None


async def test_a_job_that_changes_after_its_end_has_ended_once(bench: Seen) -> None:
    job_id = bench.submit()
    await bench.finish(job_id)
    bench.now_s = WINDOW_S
    for _ in range(3):
        for listener in bench.jobs.listeners:
            listener(bench.job(job_id))
    told = bench.overview.now()
    assert (told.arrivals_per_s, told.completions_per_s) == (1 / WINDOW_S, 1 / WINDOW_S)


async def test_a_lane_whose_worker_is_gone_is_listed_no_more(bench: Seen) -> None:
    assert bench.lane in bench.board.lanes.best_first()
    bench.die()
    assert bench.lane not in bench.board.lanes.best_first()
    assert bench.board.lanes.of(DEVICE_ID) is None
    bench.board.lanes.remove(bench.lane)
    bench.start_worker()
    assert bench.board.lanes.of(DEVICE_ID) is bench.lane


async def test_rates_come_when_ten_minutes_have_passed_since_the_server_began(bench: Seen) -> None:
    bench.now_s = 5000.0

    def takes_all(device_id: str, *, occupied: bool) -> bool:
        return False

    overview = QueueOverview(bench.board, bench.jobs, bench.devices, takes_all, bench.draining, lambda: bench.now_s)
    for passed_s, known in ((0.0, False), (WINDOW_S - 0.1, False), (WINDOW_S, True)):
        bench.now_s = 5000.0 + passed_s
        assert (overview.now().arrivals_per_s is not None) is known


@pytest.mark.parametrize(
    ("how", "blocked"),
    [
        ("lost", ErrorReason.DEVICE_LOST),
        ("disabled", ErrorReason.DEVICE_DISABLED),
        ("closed", ErrorReason.WORKER_RESTARTING),
        ("full", ErrorReason.DEVICE_OUT_OF_MEMORY),
        ("free", None),
    ],
)
async def test_each_obstacle_of_a_device_is_told_and_leaves_no_slot(
    bench: Seen, how: str, blocked: ErrorReason | None
) -> None:
    match how:
        case "lost":
            bench.devices.lost(DEVICE_ID, "unplugged")
        case "disabled":
            bench.devices.set_settings(DEVICE_ID, DeviceSettings(enabled=False))
        case "closed":
            bench.lane.closed = True
        case "full":
            bench.is_full = True
        case _:
            pass
    lane = bench.seen()
    assert (lane.blocked_by, lane.free_slots) == (None, 0 if blocked else 2), "nothing waits"
    bench.dispatcher.pump = lambda: None
    bench.submit()
    assert bench.seen().blocked_by is blocked
    await asyncio.sleep(0)


async def test_a_new_job_starts_at_once_where_a_slot_is_left_after_those_that_come_first(bench: Seen) -> None:
    bench.dispatcher.pump = lambda: None
    bench.submit(priority=3)
    assert [(one.priority, one.estimated_wait_s) for one in bench.seen().depths] == [(3, 0.0)]
    bench.submit(priority=3)
    bench.submit(priority=1)
    waits = {one.priority: one.estimated_wait_s for one in bench.seen().depths}
    assert waits == {3: None, 1: None}, "nothing was measured"
    assert bench.overview.now().queued == 3
