"""What runs on a lane, what else may, and which jobs fit on it."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from domains.device.benchmark import Suite
from domains.device.device import Backend, DeviceState
from domains.device.record import DeviceReach
from domains.device.settings import DeviceSettings
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import BenchmarkWork, LoadWork, ResetWork, ScanWork
from domains.processing.lanes.lane import Lane, Turn, needs_all
from domains.processing.lanes.placement import Placement, placement_of
from tests.domains.device.hand_clock import settle
from tests.domains.processing.scripted_worker import Floor, ScriptedWorker, a_device


def load(model_id: str = "m", **options: Any) -> Job:
    return Jobs.draft(LoadWork(model_id=model_id), JobOptions(**options))


def attempt(job: Job) -> Any:
    return SimpleNamespace(job=job)


def device_lane(capacity: int = 2) -> Lane:
    return Lane(lambda: capacity, ScriptedWorker(a_device()))


def test_a_lane_has_room_up_to_its_capacity_and_none_beside_what_needs_it_alone() -> None:
    lane = device_lane()
    jobs = [load() for _ in range(2)]
    assert (lane.room, lane.occupied, lane.device_id) == (True, 0, "sim-0")
    lane.begin(attempt(jobs[0]))
    assert (lane.room, lane.shared) == (True, set())
    lane.begin(attempt(jobs[1]))
    assert (lane.room, lane.occupied, lane.shared) == (False, 2, {job.id for job in jobs})
    lane.leave(jobs[0].id)
    assert (lane.room, lane.shared) == (True, {jobs[1].id}), "it has shared the device"
    lane.leave(jobs[1].id)
    assert lane.shared == set()
    alone = Jobs.draft(BenchmarkWork(device_id="sim-0", suites=(Suite.COMPUTE,)), JobOptions())
    lane.begin(attempt(alone))
    assert (lane.room, needs_all(alone), needs_all(load()), needs_all(replace(load(), suspect=True))) == (
        False,
        True,
        False,
        True,
    )
    lane.leave(alone.id)
    lane.closed = True
    assert lane.room is False


async def test_a_turn_alone_waits_until_nothing_runs_and_others_wait_behind_it() -> None:
    lane, job = device_lane(), load()
    lane.begin(attempt(job))
    alone, other = Turn(alone=True), Turn(alone=False)
    lane.turns.extend((alone, other))
    lane.grant_turns()
    assert (alone.granted.done(), other.granted.done()) == (False, False)
    lane.leave(job.id)
    lane.grant_turns()
    assert (alone.granted.done(), other.granted.done(), lane.room) == (True, False, False)
    lane.granted.discard(alone)
    other.granted.cancel()
    lane.grant_turns()
    assert (lane.granted, list(lane.turns)) == (set(), []), "nobody waits for a turn that was cancelled"


async def test_who_waits_for_a_lane_is_woken_when_it_is_idle_or_the_attempt_has_left() -> None:
    lane, job = device_lane(), load()
    first = attempt(job)
    await lane.idle()
    lane.begin(first)
    idle, without = asyncio.create_task(lane.idle()), asyncio.create_task(lane.without(first))
    await settle()
    assert (idle.done(), without.done()) == (False, False)
    lane.leave(job.id)
    lane.begin(attempt(job))
    await settle()
    assert (idle.done(), without.done()) == (False, True)
    lane.leave(job.id)
    await idle


def test_ending_a_worker_closes_its_lane_and_counts_against_no_job() -> None:
    lane = device_lane()
    lane.end_worker("it hangs")
    assert isinstance(lane.worker, ScriptedWorker)
    assert (lane.closed, lane.meant_to_end, lane.worker.ended) == (True, True, ["it hangs"])
    front = Lane(lambda: 1, front=ScanWork)
    front.end_worker("a shutdown")
    assert (front.device_id, front.closed) == ("", True)


def test_models_that_leave_are_told_to_the_jobs_that_need_them() -> None:
    lane = device_lane()
    lane.leaving = ["m@sim-0", "n@sim-0", "m@sim-0", "m@sim-1"]
    assert lane.leaving_for(load("m")) == ["m@sim-0"]
    assert lane.leaving_for(load("other")) == []


def test_work_of_the_front_and_of_devices_have_lanes_of_their_own() -> None:
    scan, on_any = placement_of(Jobs.draft(ScanWork(), JobOptions())), placement_of(load())
    assert scan == Placement(front=ScanWork)
    front, device = Lane(lambda: 1, front=ScanWork), device_lane()
    assert (front.fits(scan), device.fits(scan)) == (True, False)
    assert (front.fits(on_any), device.fits(on_any)) == (False, True)
    reset = placement_of(Jobs.draft(ResetWork(device_id="sim-0"), JobOptions()))
    assert (front.fits(reset), Lane(lambda: 1, front=ResetWork).fits(reset)) == (False, True)


@pytest.mark.parametrize(
    ("options", "left", "fits"),
    [
        ({}, (), True),
        ({"device_ids": ("sim-0",)}, (), True),
        ({"device_ids": ("card", "x")}, (), True),
        ({"device_ids": ("sim-1",)}, (), False),
        ({}, ("sim-0",), False),
        ({"device_ids": ("sim-0",)}, ("sim-0",), False),
        ({}, ("sim-1",), True),
    ],
)
def test_a_job_fits_on_devices_that_it_names_by_any_name_and_has_not_left(
    options: dict[str, Any], left: tuple[str, ...], fits: bool
) -> None:
    job = replace(load(**options), left_device_ids=left)
    device = replace(a_device(), aliases=("card",), backend=Backend.SIMULATED)
    assert placement_of(job).allows(device) is fits


async def test_the_cpu_takes_jobs_that_allow_it_or_name_it_or_have_nothing_else(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    floor.arrive("cpu")
    anywhere, allowed, named = load(), load(allow_cpu=True), load(device_ids=("cpu",))
    assert [placement_of(job).leaves_cpu(floor.devices.list()) for job in (anywhere, allowed, named)] == [False] * 3
    floor.arrive("sim-0")
    assert [placement_of(job).leaves_cpu(floor.devices.list()) for job in (anywhere, allowed, named)] == [
        True,
        False,
        False,
    ]
    lanes, cpu = floor.board.lanes, floor.board.lanes.of("cpu")
    assert cpu is not None
    assert [lanes.fits(cpu, placement_of(job)) for job in (anywhere, allowed, named)] == [False, True, True]
    assert lanes.has_other_than(anywhere, "cpu")
    assert not lanes.has_other_than(anywhere, "sim-0")
    assert lanes.has_other_than(allowed, "sim-0")
    floor.devices.set_settings("sim-0", DeviceSettings(enabled=False))
    assert not placement_of(anywhere).leaves_cpu(floor.devices.list())
    floor.devices.set_settings("sim-0", DeviceSettings(enabled=True))
    floor.devices.lost("sim-0", "unplugged")
    assert floor.devices.get("sim-0").state is DeviceState.LOST
    assert not placement_of(anywhere).leaves_cpu(floor.devices.list())
    floor.database.close()


async def test_a_lane_that_is_not_ready_yet_is_waited_for(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    floor.devices.described("sim-0", a_device(), DeviceReach(), ready=False)
    ready = asyncio.create_task(floor.board.lanes.ready("sim-0"))
    await settle()
    assert not ready.done()
    floor.arrive("sim-0")
    assert (await ready).device_id == "sim-0"
    floor.database.close()
