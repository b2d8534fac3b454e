"""Which queued jobs wait for which devices."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from domains.device.settings import DeviceSettings
from domains.errors import ErrorReason, Unavailable
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.kinds import FRONT_KINDS, LoadWork
from domains.processing.lanes.lane import Lane
from domains.processing.lanes.placement import Placement, placement_of
from tests.domains.processing.dispatch_bench import DispatchBench
from tests.domains.processing.scripted_worker import Floor, ScriptedWorker, a_device


class Waiting(Floor):
    """Devices whose lanes have no room, so that every job waits."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.draining.begin()
        for name in ("sim-0", "sim-1"):
            self.arrive(name)

    def submit(self, *device_ids: str) -> str:
        return self.jobs.submit(LoadWork(model_id="m"), JobOptions(device_ids=device_ids))[0].id

    def ids(self, jobs: list[Job]) -> set[str]:
        return {job.id for job in jobs}


@pytest.fixture
async def floor(tmp_path: Path) -> Any:
    floor = Waiting(tmp_path)
    yield floor
    await floor.close()


async def test_jobs_that_only_some_devices_take_wait_for_those(floor: Waiting) -> None:
    first, second, both, any_of_them = (
        floor.submit("sim-0"),
        floor.submit("sim-1"),
        floor.submit("sim-0", "sim-1"),
        floor.submit(),
    )
    backlog = floor.board.backlog
    assert floor.ids(backlog.waiting_for(lambda name: name == "sim-0")) == {first}
    assert floor.ids(backlog.waiting_for(lambda name: name == "sim-1")) == {second}
    assert floor.ids(backlog.waiting_for(lambda name: True)) == {first, second, both, any_of_them}
    assert backlog.waiting_for(lambda name: False) == []


async def test_jobs_are_stranded_without_the_only_device_that_takes_them(floor: Waiting) -> None:
    first, any_of_them = floor.submit("sim-0"), floor.submit()
    assert floor.board.backlog.stranded_without("sim-0") == (first,)
    assert floor.board.backlog.stranded_without("sim-1") == ()
    floor.devices.set_settings("sim-1", DeviceSettings(enabled=False))
    assert set(floor.board.backlog.stranded_without("sim-0")) == {first, any_of_them}


async def test_a_device_tells_how_many_jobs_wait_for_it(floor: Waiting) -> None:
    floor.submit("sim-0")
    floor.submit()
    assert floor.board.backlog.workload("sim-0").queued_count == 2
    assert floor.board.backlog.workload("sim-1").queued_count == 1
    assert floor.board.backlog.workload("sim-9").queued_count == 0


async def test_a_lane_that_is_closed_or_of_another_device_is_not_a_devices_lane(floor: Waiting) -> None:
    lanes = floor.board.lanes
    lane = lanes.of("sim-1")
    assert lane is not None
    assert lane.device_id == "sim-1"
    assert lanes.of("sim-9") is None
    lane.closed = True
    assert lanes.of("sim-1") is None
    lanes.remove(lane)
    lanes.remove(lane)
    assert lane.left.is_set()


async def test_front_work_runs_beside_its_own_kind_only_where_that_helps(floor: Waiting) -> None:
    """A scan looks at all roots, and a conversion fills memory and disk: a second one at once would be slower."""
    lanes = floor.board.lanes
    front = [lane for lane in lanes.best_first() if lane.worker is None]
    assert all(lane.device_id == "" and lanes.takes_work(lane) for lane in front)
    at_once = {
        kind.__name__: sum(lane.capacity for lane in front if lane.fits(Placement(front=kind))) for kind in FRONT_KINDS
    }
    assert at_once == {
        "ScanWork": 1,
        "ConvertWork": 1,
        "ValidateWork": 2,
        "HostLoadWork": 2,
        "TransferWork": 4,
        "ResetWork": 16,
    }


async def test_the_cpu_takes_what_names_or_allows_it_or_has_no_other_device(floor: Waiting) -> None:
    cpu = Lane(lambda: 1, ScriptedWorker(a_device("cpu")))
    floor.board.lanes.add(cpu)
    floor.devices.described("cpu", a_device("cpu"), floor.devices.get("sim-0").reach, ready=True)
    placed = {
        name: placement
        for name, options in (
            ("any", JobOptions()),
            ("named", JobOptions(device_ids=("cpu",))),
            ("allowed", JobOptions(allow_cpu=True)),
            ("other", JobOptions(device_ids=("sim-0",))),
        )
        for placement in [placement_of(floor.jobs.draft(LoadWork(model_id="m"), options))]
    }

    def takes() -> set[str]:
        return {name for name, placement in placed.items() if floor.board.lanes.fits(cpu, placement)}

    assert takes() == {"named", "allowed"}
    floor.devices.set_settings("sim-0", DeviceSettings(enabled=False))
    assert takes() == {"named", "allowed"}
    floor.devices.lost("sim-1", "unplugged")
    assert takes() == {"any", "named", "allowed"}


async def test_a_turn_on_a_lane_whose_worker_ended_is_refused(floor: Waiting) -> None:
    lane = floor.board.lanes.of("sim-0")
    assert lane is not None

    async def take() -> None:
        async with floor.board.lanes.turn(lane, alone=True):
            raise AssertionError("it was let in")

    async with floor.board.lanes.turn(lane, alone=True):
        waiting = asyncio.create_task(take())
        await asyncio.sleep(0)
        floor.board.lanes.remove(lane)
        with pytest.raises(Unavailable) as caught:
            await waiting
    assert caught.value.reason is ErrorReason.WORKER_RESTARTING


async def test_a_job_that_comes_back_alone_shares_its_lane_no_more(tmp_path: Path) -> None:
    bench = DispatchBench(tmp_path)
    first, second = bench.submit(), bench.submit()
    await bench.at_work(first, second)
    assert bench.lane.shared == {first, second}
    bench.crowded = True
    await bench.board.lanes.preempt(first, ErrorReason.PREEMPTED, "its memory was needed")
    await bench.finish(second)
    await bench.at_work(first)
    assert bench.lane.shared == set()
    await bench.finish(first)
    await bench.close()
