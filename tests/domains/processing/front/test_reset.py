"""Resets: of a worker that never was ready, of one that hangs, and one that somebody calls off."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from domains.device.benchmark import Suite
from domains.device.device import DeviceState
from domains.device.health import HealthCheck, Verdict
from domains.device.record import DeviceReach, DeviceView
from domains.device.sample import DeviceSample
from domains.device.settings import DeviceSettings
from domains.errors import ErrorReason, NotSupported
from domains.model.loaded import LoadedModel
from domains.processing.attempts.front_task import FrontRunners, FrontTask
from domains.processing.devices.care import DeviceCare
from domains.processing.front import reset
from domains.processing.front.reset import ResetRunner
from domains.processing.jobs.event import ResetResult
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.kinds import BenchmarkWork, ResetWork
from domains.processing.jobs.outcome import Done, Halted
from domains.processing.jobs.state import JobState
from domains.processing.workers.worker import Checked, Emptied, EmptyOrder
from domains.progress import Stage, StageStarted
from tests.domains.processing.dispatch_bench import nothing
from tests.domains.processing.scripted_worker import STALL_S, Floor, a_device


class Resets:
    def __init__(self, folder: Path) -> None:
        self.floor = floor = Floor(
            folder,
            FrontRunners(
                scan=nothing, transfer=nothing, reset=self.run, validate=nothing, load_to_host=nothing, convert=nothing
            ),
        )
        self.restarts: list[str] = []
        self.restarted = asyncio.Event()
        self.used: list[int] = []
        """Bytes that the next measurements tell."""
        self.on_measure: list[Callable[[], None]] = []
        self.care = DeviceCare(
            floor.devices,
            floor.board.lanes,
            self.measure,
            self.restart,
            Coroutine.close,
            recheck_s=1.0,
            stall_timeout_s=STALL_S,
        )
        self.runner = ResetRunner(floor.devices, floor.board.lanes, floor.loaded, self.care)

    async def measure(self, view: DeviceView) -> DeviceSample:
        for listener in self.on_measure:
            listener()
        return DeviceSample(time_s=0.0, used_memory_bytes=self.used.pop(0) if self.used else None)

    async def run(self, work: ResetWork, task: FrontTask) -> Done | Halted:
        return await self.runner.run(work, task)

    def restart(self, device_id: str, why: str) -> None:
        self.restarts.append(device_id)
        self.restarted.set()

    def submit(self, *, process: bool) -> str:
        work = ResetWork(device_id="sim-0", process=process, drain_timeout_s=0.0, force=True)
        return self.floor.jobs.submit(work, JobOptions())[0].id

    async def ended(self, job_id: str) -> Job:
        live = self.floor.jobs.live(job_id)
        while not live.journal.closed:
            await live.journal.more(live.journal.last_sequence, 60.0)
        await self.floor.dispatcher.idle()
        return self.floor.jobs.get(job_id)


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def resets(tmp_path: Path) -> Resets:
    return Resets(tmp_path)


async def test_a_reset_ends_a_worker_that_never_was_ready(resets: Resets) -> None:
    floor = resets.floor
    floor.devices.described("sim-0", a_device(), DeviceReach(), ready=False)
    job_id = resets.submit(process=True)
    await resets.restarted.wait()
    assert resets.restarts == ["sim-0"]
    worker = floor.arrive()
    worker.say(Checked(check=HealthCheck(name="compute", verdict=Verdict.HEALTHY, message="")))
    assert (await resets.ended(job_id)).state is JobState.SUCCEEDED


async def test_a_reset_tells_at_once_that_something_is_not_installed(resets: Resets) -> None:
    devices = resets.floor.devices
    refusal = NotSupported("install it", ErrorReason.FEATURE_NOT_INSTALLED)
    devices.described("sim-0", a_device(), DeviceReach(), ready=False)
    devices.unready("sim-0", refusal)
    assert devices.get("sim-0").state is DeviceState.QUARANTINED
    job_id = resets.submit(process=True)
    await resets.restarted.wait()
    assert devices.get("sim-0").condition.refusal is None
    devices.unready("sim-0", refusal)
    failure = (await resets.ended(job_id)).failure
    assert failure is not None
    assert failure.reason is ErrorReason.FEATURE_NOT_INSTALLED


async def test_emptying_a_worker_that_hangs_ends_it_and_says_so(
    resets: Resets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reset, "_EMPTY_S", 0.01)
    worker = resets.floor.arrive()
    worker.quiet_s = 1.0
    failure = (await resets.ended(resets.submit(process=False))).failure
    assert failure is not None
    assert failure.reason is ErrorReason.DRIVER_ERROR
    assert len(worker.ended) == 1
    assert resets.floor.devices.get("sim-0").health.error_count == 1


async def test_a_reset_that_waits_for_a_worker_can_be_called_off(resets: Resets) -> None:
    worker = resets.floor.arrive()
    given = asyncio.Event()
    original = worker.carry_out

    def carry_out(order: EmptyOrder):  # pyright: ignore[reportUnknownParameterType]  # a generator of reports
        given.set()
        return original(order)

    worker.carry_out = carry_out  # pyright: ignore[reportAttributeAccessIssue]
    job_id = resets.submit(process=False)
    await given.wait()
    resets.floor.jobs.cancel(job_id, "never mind")
    assert (await resets.ended(job_id)).state is JobState.CANCELLED
    assert resets.floor.devices.get("sim-0").state is DeviceState.AVAILABLE


@pytest.mark.parametrize(("used", "freed"), [([9, 2], 7), ([9], None)])
async def test_a_reset_of_the_process_waits_for_the_next_worker_and_tells_what_was_freed(
    resets: Resets, used: list[int], freed: int | None
) -> None:
    floor, lanes = resets.floor, resets.floor.board.lanes
    worker, lane, begin = floor.arrive(), lanes.of("sim-0"), time.monotonic()
    assert lane is not None
    resets.used, meant, measured = used, list[bool](), asyncio.Event()
    resets.on_measure += [lambda: meant.append(lane.meant_to_end), measured.set]
    job_id = resets.submit(process=True)
    await measured.wait()
    await settle()
    assert (floor.jobs.get(job_id).state, meant, worker.ended) == (JobState.RUNNING, [True], ["the device is reset"])
    lanes.remove(lane)
    floor.devices.worker_gone("sim-0", None)
    await settle()
    floor.arrive().say(Checked(check=HealthCheck(name="compute", verdict=Verdict.HEALTHY, message="")))
    result = (await resets.ended(job_id)).result
    assert isinstance(result, ResetResult)
    assert (result.report.process, result.report.freed_bytes, resets.restarts) == (True, freed, [])
    assert 0 < result.report.duration_s <= time.monotonic() - begin


async def test_a_device_that_was_never_enabled_has_no_process_to_end(resets: Resets) -> None:
    settings = DeviceSettings(enabled=False)
    resets.floor.devices.described("sim-0", a_device(), DeviceReach(), ready=False, settings=settings)
    result = (await resets.ended(resets.submit(process=True))).result
    assert isinstance(result, ResetResult)
    assert (result.report.freed_bytes, resets.restarts) == (0, [])


async def test_a_server_that_goes_leaves_a_reset_to_the_next_start(resets: Resets) -> None:
    floor = resets.floor
    floor.devices.described("sim-0", a_device(), DeviceReach(), ready=False)
    job_id = resets.submit(process=True)
    await resets.restarted.wait()
    floor.dispatcher.leave_front_work()
    await floor.dispatcher.idle()
    assert floor.jobs.get(job_id).state is JobState.RUNNING


async def test_emptying_a_worker_unloads_what_it_held_and_leaves_its_process(resets: Resets) -> None:
    floor = resets.floor
    worker, other = floor.arrive(), floor.arrive("sim-1")
    for device_id in ("sim-0", "sim-1"):
        floor.loaded.put(
            LoadedModel(
                id=f"m@{device_id}",
                model_id="m",
                device_id=device_id,
                components=(),
                load_time_s=0.0,
                last_use_time_s=0.0,
            )
        )
    worker.say(Emptied(freed_bytes=7))
    worker.say(Checked(check=HealthCheck(name="compute", verdict=Verdict.HEALTHY, message="")))
    job = await resets.ended(resets.submit(process=False))
    assert isinstance(job.result, ResetResult)
    report = job.result.report
    assert (report.process, report.device_id, report.freed_bytes) == (False, "sim-0", 7)
    assert (report.ended_loaded_model_ids, report.interrupted_job_ids) == (("m@sim-0",), ())
    assert [one.id for one in floor.loaded.list()] == ["m@sim-1"]
    assert (worker.ended, other.orders) == ([], [])
    order = worker.orders[0]
    assert isinstance(order, EmptyOrder)
    assert order.models
    assert job.result.view.state is DeviceState.AVAILABLE
    stages = [
        entry.value for entry in floor.jobs.live(job.id).journal.after(0) if isinstance(entry.value, StageStarted)
    ]
    assert [each.stage for each in stages] == [Stage.DRAINING, Stage.RESETTING]


async def test_emptying_a_worker_waits_for_a_check_that_runs_on_it(resets: Resets) -> None:
    floor, lanes = resets.floor, resets.floor.board.lanes
    worker, lane = floor.arrive(), lanes.of("sim-0")
    assert lane is not None
    async with lanes.turn(lane, alone=False):
        job_id = resets.submit(process=False)
        live = floor.jobs.live(job_id)
        while live.job.stage is not Stage.RESETTING:
            await live.journal.more(live.journal.last_sequence, 60.0)
        await settle()
        assert worker.orders == []
    worker.say(Emptied(freed_bytes=7))
    worker.say(Checked(check=HealthCheck(name="compute", verdict=Verdict.HEALTHY, message="")))
    assert (await resets.ended(job_id)).state is JobState.SUCCEEDED


async def test_a_device_that_is_still_not_well_fails_its_reset(resets: Resets) -> None:
    worker = resets.floor.arrive()
    worker.say(Emptied(freed_bytes=None))
    worker.say(Checked(check=HealthCheck(name="compute", verdict=Verdict.UNHEALTHY, message="wrong sums")))
    failure = (await resets.ended(resets.submit(process=False))).failure
    assert failure is not None
    assert failure.reason is ErrorReason.DRIVER_ERROR
    assert "still not well: compute: wrong sums" in failure.message


@pytest.mark.parametrize("force", [False, True])
async def test_running_jobs_are_interrupted_only_by_force(resets: Resets, force: bool) -> None:
    floor = resets.floor
    worker = floor.arrive()
    work = BenchmarkWork(device_id="sim-0", suites=tuple(Suite)[:1])
    running = floor.jobs.submit(work, JobOptions())[0].id
    while floor.jobs.get(running).state is not JobState.RUNNING:
        await floor.jobs.live(running).journal.more(floor.jobs.live(running).journal.last_sequence, 5.0)
    asked = ResetWork(device_id="sim-0", process=False, drain_timeout_s=0.0, force=force)
    job_id = floor.jobs.submit(asked, JobOptions())[0].id
    if force:
        await worker.gone.wait()
        assert worker.ended == ["the device is reset"]
        floor.jobs.cancel(job_id)
        return
    live = floor.jobs.live(job_id)
    while not live.journal.closed:
        await live.journal.more(live.journal.last_sequence, 60.0)
    failure = floor.jobs.get(job_id).failure
    assert failure is not None
    assert (failure.reason, failure.facts["jobs"]) == (ErrorReason.ILLEGAL_STATE, running)
    assert worker.ended == []
    assert floor.jobs.get(running).state is JobState.RUNNING


async def test_a_job_that_ends_in_time_is_not_interrupted_by_a_reset(resets: Resets) -> None:
    floor = resets.floor
    worker = floor.arrive()
    work = BenchmarkWork(device_id="sim-0", suites=tuple(Suite)[:1])
    running = floor.jobs.live(floor.jobs.submit(work, JobOptions())[0].id)
    while not worker.orders:
        await running.journal.more(running.journal.last_sequence, 5.0)
        await settle()
    asked = ResetWork(device_id="sim-0", process=False, drain_timeout_s=60.0, force=False)
    job_id = floor.jobs.submit(asked, JobOptions())[0].id
    live = floor.jobs.live(job_id)
    while live.job.stage is not Stage.DRAINING:
        await live.journal.more(live.journal.last_sequence, 5.0)
    await settle()
    assert (len(worker.orders), live.job.stage, running.job.state) == (1, Stage.DRAINING, JobState.RUNNING)
    worker.say()  # ends the job, although it does not answer it
    worker.say(Emptied(freed_bytes=7))
    worker.say(Checked(check=HealthCheck(name="compute", verdict=Verdict.HEALTHY, message="")))
    ended = await resets.ended(job_id)
    assert isinstance(ended.result, ResetResult)
    report = ended.result.report
    assert (report.interrupted_job_ids, report.freed_bytes, worker.ended) == ((), 7, [])
    assert running.job.state is JobState.FAILED


async def test_a_device_that_vanishes_or_does_not_come_back_fails_its_reset(
    resets: Resets, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = resets.floor
    floor.devices.described("sim-0", a_device(), DeviceReach(), ready=False)
    job_id = resets.submit(process=True)
    await resets.restarted.wait()
    floor.devices.lost("sim-0", "unplugged")
    failure = (await resets.ended(job_id)).failure
    assert failure is not None
    assert failure.reason is ErrorReason.DEVICE_LOST
    floor.devices.returned("sim-0")
    monkeypatch.setattr(reset, "_READY_S", 0.01)
    late = (await resets.ended(resets.submit(process=True))).failure
    assert late is not None
    assert (late.reason, "did not come back within" in late.message) == (ErrorReason.DRIVER_ERROR, True)
