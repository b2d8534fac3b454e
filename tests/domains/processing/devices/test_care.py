"""Health checks: what hangs is ended, what is merely busy is left alone, and only a check that was done forgives."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import cast

import pytest

from domains.device.device import DeviceState
from domains.device.health import HealthCheck, HealthDepth, Verdict
from domains.device.record import DeviceReach, DeviceView
from domains.device.sample import DeviceSample
from domains.device.settings import DeviceSettings
from domains.errors import DeadlineExceeded, ErrorReason, InternalError, NotSupported, Unavailable
from domains.inference.outcome import RunFailed
from domains.processing.devices.care import DeviceCare
from domains.processing.devices.check import advice
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import LoadWork
from domains.processing.lanes.lane import Running
from domains.processing.workers.ask import ask
from domains.processing.workers.worker import Checked, Emptied, EmptyOrder
from domains.progress import Receipt
from tests.domains.processing.scripted_worker import STALL_S, Floor, a_device

SHORT_S = 0.05
QUICK = HealthDepth.QUICK
FAULT = InternalError("broken", ErrorReason.DRIVER_ERROR)


class Cared:
    def __init__(self, floor: Floor) -> None:
        self.floor = floor
        self.restarted: list[str] = []
        self.spawned: list[str] = []
        self.care = DeviceCare(
            floor.devices,
            floor.board.lanes,
            self.sample,
            lambda device_id, why: self.restarted.append(device_id),
            self.spawn,
            recheck_s=0.01,
            stall_timeout_s=STALL_S,
        )
        self.on_sample: Callable[[], None] = lambda: None

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        self.spawned.append(work.__qualname__)
        work.close()

    async def sample(self, view: DeviceView) -> DeviceSample:
        self.on_sample()
        return DeviceSample(time_s=0.0, temperature_celsius=40.0)

    @property
    def state(self) -> DeviceState:
        return self.floor.devices.get("sim-0").state


@pytest.fixture
async def cared(tmp_path: Path) -> Cared:
    return Cared(Floor(tmp_path))


class Loading:
    """An attempt that never ends."""

    def __init__(self, job: Job) -> None:
        self.job = job


def checked(verdict: Verdict = Verdict.HEALTHY) -> Checked:
    return Checked(check=HealthCheck(name="compute", verdict=verdict, message=""))


async def test_the_turn_of_a_check_is_told_once_before_what_its_worker_answers(cared: Cared) -> None:
    worker = cared.floor.arrive()
    answers = [HealthCheck(name=name, verdict=Verdict.HEALTHY, message="") for name in ("allocate", "compute")]
    worker.say(*(Checked(check=one) for one in answers))
    report = await cared.care.try_out(cared.floor.devices.get("sim-0"), HealthDepth.QUICK, 60.0)
    assert [one.name for one in report.checks if one.name != "telemetry"] == ["queue", "allocate", "compute"]


async def test_a_check_beside_a_long_silent_load_ends_no_worker(cared: Cared) -> None:
    worker = cared.floor.arrive()
    lane = cared.floor.board.lanes.of("sim-0")
    assert lane is not None
    job = Jobs.draft(LoadWork(model_id="m"), JobOptions())
    lane.begin(cast(Running, Loading(job)))
    worker.quiet_s = STALL_S / 2
    with pytest.raises(DeadlineExceeded) as refused:
        await cared.care.check("sim-0", QUICK, SHORT_S)
    assert refused.value.reason is ErrorReason.QUEUE_TIMEOUT
    # Its turn had come: there was room beside the job.
    assert len(worker.orders) == 1
    assert worker.ended == []
    assert cared.state is DeviceState.AVAILABLE
    worker.quiet_s = STALL_S
    assert (await cared.care.check("sim-0", QUICK, SHORT_S)).verdict is Verdict.UNHEALTHY
    assert len(worker.ended) == 1


async def test_a_worker_that_has_nothing_else_to_do_and_is_silent_hangs(cared: Cared) -> None:
    worker = cared.floor.arrive()
    worker.quiet_s = SHORT_S
    report = await cared.care.check("sim-0", QUICK, SHORT_S)
    assert report.verdict is Verdict.UNHEALTHY
    assert report.recommendations[0].startswith("restart its worker process with ResetDevice for sim-0; ")
    assert len(worker.ended) == 1
    assert cared.state is DeviceState.QUARANTINED
    assert cared.floor.devices.get("sim-0").state_reason.startswith("health check `queue` failed on sim-0: ")


async def test_checks_that_were_not_all_done_forgive_nothing(cared: Cared) -> None:
    worker = cared.floor.arrive()
    cared.floor.devices.quarantine("sim-0", FAULT)
    worker.say(checked())
    begun = asyncio.Event()
    original = worker.carry_out

    async def half(order: object):  # pyright: ignore[reportUnknownParameterType]  # a generator of reports
        async for report in original(order):  # pyright: ignore[reportArgumentType]
            yield report
        begun.set()
        await asyncio.Event().wait()

    worker.carry_out = half  # pyright: ignore[reportAttributeAccessIssue]
    worker.quiet_s = SHORT_S
    report = await cared.care.check("sim-0", HealthDepth.FULL, SHORT_S)
    assert begun.is_set()
    assert report.verdict is Verdict.HEALTHY
    assert report.checks[-1].verdict is Verdict.SKIPPED
    assert worker.ended == []
    assert cared.state is DeviceState.QUARANTINED


async def test_a_worker_that_is_still_starting_is_not_ill(cared: Cared) -> None:
    cared.floor.devices.described("sim-0", a_device(), DeviceReach(), ready=False)
    with pytest.raises(Unavailable) as refused:
        await cared.care.check("sim-0", QUICK, SHORT_S)
    assert refused.value.reason is ErrorReason.STARTING
    assert cared.state is DeviceState.STARTING


async def test_a_device_that_nothing_installed_can_serve_is_told_at_once_and_is_no_error(cared: Cared) -> None:
    devices = cared.floor.devices
    devices.described("sim-0", a_device(), DeviceReach(), ready=False)
    devices.unready("sim-0", NotSupported("install it", ErrorReason.FEATURE_NOT_INSTALLED))
    report = await cared.care.check("sim-0", QUICK, 60.0)
    assert report.checks[-1].failure_reason is ErrorReason.FEATURE_NOT_INSTALLED
    assert report.verdict is Verdict.UNHEALTHY
    assert devices.get("sim-0").health.error_count == 0
    assert cared.restarted == []


async def test_a_quarantine_is_not_lifted_by_what_was_not_tried(cared: Cared) -> None:
    devices = cared.floor.devices
    devices.described("sim-0", a_device(), DeviceReach(), ready=False, settings=DeviceSettings(enabled=False))
    devices.quarantine("sim-0", FAULT)
    report = await cared.care.check("sim-0", QUICK, SHORT_S)
    assert [check.verdict for check in report.checks] == [Verdict.HEALTHY, Verdict.SKIPPED]
    assert cared.state is DeviceState.QUARANTINED


async def test_a_device_that_becomes_quarantined_is_checked_again_by_itself(cared: Cared) -> None:
    cared.floor.arrive()
    for _ in range(2):
        cared.floor.devices.quarantine("sim-0", FAULT)
    assert cared.spawned == [DeviceCare.bring_back.__qualname__]


async def test_a_bug_does_not_keep_a_device_quarantined_for_ever(cared: Cared) -> None:
    worker = cared.floor.arrive()
    cared.floor.devices.quarantine("sim-0", FAULT)
    looks = 0

    def breaks_once() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError("a bug")

    cared.on_sample = breaks_once
    worker.say(checked())
    await cared.care.bring_back("sim-0")
    assert looks == 2
    assert cared.state is DeviceState.AVAILABLE


async def test_a_driver_error_ends_the_worker_whatever_the_order_was(cared: Cared) -> None:
    worker = cared.floor.arrive()
    worker.say(RunFailed(reason=ErrorReason.DRIVER_ERROR, message="sticky", facts={}, receipt=Receipt()))
    with pytest.raises(InternalError):
        await ask(worker, EmptyOrder(order_id="empty"), Emptied)
    assert worker.ended == ["its driver failed: sticky"]


async def test_a_device_that_is_being_reset_is_not_checked(cared: Cared) -> None:
    cared.floor.arrive()
    cared.floor.devices.resetting("sim-0", True)
    with pytest.raises(Unavailable) as caught:
        await cared.care.check("sim-0", QUICK, SHORT_S)
    assert caught.value.reason is ErrorReason.DEVICE_RECOVERING


@pytest.mark.parametrize(
    ("name", "verdict", "told"),
    [
        *((name, Verdict.UNHEALTHY, "restart its worker") for name in ("queue", "allocate", "copy", "compute")),
        *((name, Verdict.UNHEALTHY, "do not trust pictures") for name in ("verify", "memory_patterns")),
        ("sustained_compute", Verdict.DEGRADED, "look at cooling"),
        ("sustained_compute", Verdict.UNHEALTHY, ""),
        ("copy", Verdict.HEALTHY, ""),
        ("verify", Verdict.SKIPPED, ""),
    ],
)
def test_what_a_check_found_decides_the_advice(name: str, verdict: Verdict, told: str) -> None:
    found = advice("sim-0", [HealthCheck(name=name, verdict=verdict, message="")])
    assert [one[: len(told)] for one in found] == ([told] if told else [])
