"""Devices: the state that follows from what is known, and the events that tell of it."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from domains import storage
from domains.device.benchmark import BenchmarkReport
from domains.device.device import Backend, Device, DeviceKind, DeviceState
from domains.device.devices import Devices
from domains.device.record import (
    DEGRADE_AFTER,
    DEGRADE_WITHIN,
    ERROR_WINDOW_S,
    QUARANTINE_AFTER,
    QUARANTINE_WITHIN,
    DeviceFigures,
    DeviceReach,
)
from domains.device.settings import DeviceGoal, DeviceSettings
from domains.errors import DeviceOpsError, ErrorReason, InternalError, NotFound, NotSupported, Unavailable
from domains.events import EventLog, Severity, SystemEvent

FAULT = InternalError("the driver failed", ErrorReason.DRIVER_ERROR)


def a_device(name: str = "gpu-1a2b3c4d", **changes: object) -> Device:
    facts: dict[str, object] = {
        "id": name,
        "aliases": ("cuda:0", "0"),
        "display_name": "A card",
        "kind": DeviceKind.DISCRETE_GPU,
        "backend": Backend.CUDA,
        "backend_index": 0,
        "vendor": "NVIDIA",
        "total_memory_bytes": 1,
        "precision_support": (),
        **changes,
    }
    return Device(**facts)  # pyright: ignore[reportArgumentType]  # the facts above


class World:
    def __init__(self, folder: Path) -> None:
        self.database: sqlite3.Connection = storage.open_database(folder)
        self.log = EventLog(self.database, folder)
        self.devices = Devices(self.log, ["cuda:0"])

    def ready(self, device: Device | None = None) -> str:
        device = device or a_device()
        return self.devices.described("cuda:0", device, DeviceReach(capacity=2), ready=True).device.id

    def state(self, device_id: str) -> DeviceState:
        return self.devices.get(device_id).state

    def events(self) -> list[SystemEvent]:
        return [entry.value for entry in self.log.journal.after(0)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_before_the_first_look_nothing_is_known(world: World) -> None:
    for ask in (world.devices.check_known, lambda: world.devices.get("cuda:0")):
        with pytest.raises(Unavailable) as refused:
            ask()
        assert refused.value.reason is ErrorReason.STARTING
    with pytest.raises(NotFound):
        world.devices.get("cuda:7")


def test_an_unknown_device_is_told_with_those_there_are(world: World) -> None:
    world.ready()
    with pytest.raises(NotFound) as refused:
        world.devices.get("gpu-none")
    assert refused.value.facts["known"] == "gpu-1a2b3c4d"


def test_errors_in_a_row_degrade_then_quarantine_and_success_mends_only_the_first(world: World) -> None:
    device_id = world.ready()
    for count in range(1, QUARANTINE_AFTER + 1):
        world.devices.failed(device_id, FAULT)
        expected = DeviceState.AVAILABLE if count < DEGRADE_AFTER else DeviceState.DEGRADED
        assert world.state(device_id) is (DeviceState.QUARANTINED if count == QUARANTINE_AFTER else expected)
    assert not world.devices.takes_work(device_id)
    world.devices.succeeded(device_id)
    world.devices.succeeded("gpu-none")
    assert world.state(device_id) is DeviceState.QUARANTINED
    assert world.devices.get(device_id).health.consecutive == QUARANTINE_AFTER
    world.devices.passed(device_id)
    assert world.state(device_id) is DeviceState.AVAILABLE
    assert world.devices.get(device_id).health.error_count == QUARANTINE_AFTER


def test_errors_in_a_window_count_although_jobs_go_well_between_them(tmp_path: Path) -> None:
    world, now = World(tmp_path), 1000.0
    world.devices = Devices(world.log, clock=lambda: now)
    device_id = world.ready()
    for count in range(1, QUARANTINE_WITHIN + 1):
        world.devices.failed(device_id, FAULT)
        world.devices.succeeded(device_id)
        expected = DeviceState.AVAILABLE if count < DEGRADE_WITHIN else DeviceState.DEGRADED
        assert world.state(device_id) is (DeviceState.QUARANTINED if count == QUARANTINE_WITHIN else expected)
    world.devices.passed(device_id)
    for _ in range(DEGRADE_WITHIN):
        world.devices.failed(device_id, FAULT)
        world.devices.succeeded(device_id)
    assert world.state(device_id) is DeviceState.DEGRADED
    now += ERROR_WINDOW_S
    world.devices.forget_old_errors(device_id)
    assert world.state(device_id) is DeviceState.AVAILABLE


def test_a_worker_that_does_not_become_ready_counts_against_its_device(world: World) -> None:
    device = a_device()
    world.devices.described("cuda:0", device, DeviceReach(), ready=False)
    for _ in range(QUARANTINE_AFTER):
        world.devices.unready("cuda:0", FAULT)
    assert world.state(device.id) is DeviceState.QUARANTINED
    told = [event for event in world.events() if event.kind == "device.error"]
    assert [event.failure and event.failure.reason for event in told] == [ErrorReason.DRIVER_ERROR] * QUARANTINE_AFTER


def test_a_worker_that_dies_counts_against_its_device_and_one_that_the_server_ends_does_not(world: World) -> None:
    device_id = world.ready()
    world.devices.worker_gone("gpu-none", FAULT)
    for problem, count in ((None, 0), (FAULT, 1)):
        world.devices.worker_gone(device_id, problem)
        assert world.devices.get(device_id).health.error_count == count
        assert not world.devices.takes_work(device_id)
        world.ready()


def test_no_job_runs_on_a_device_whose_worker_or_itself_is_gone(world: World) -> None:
    device_id = world.ready()
    for gone in (
        lambda: world.devices.worker_gone(device_id, None),
        lambda: world.devices.worker_gone(device_id, FAULT),
        lambda: world.devices.lost(device_id, "unplugged"),
    ):
        world.ready()
        world.devices.running(device_id, 2)
        world.devices.silent(device_id, "no report for 60 s")
        gone()
        view = world.devices.get(device_id)
        assert (view.running, view.condition.silent, view.condition.worker_ready) == (0, "", False)


def test_what_nothing_installed_can_serve_is_refused_with_what_to_install(world: World) -> None:
    refusal = NotSupported("install torch with CUDA", ErrorReason.FEATURE_NOT_INSTALLED)
    world.devices.unready("cuda:0", refusal)
    for ask in (world.devices.get, world.devices.check):
        with pytest.raises(NotSupported, match="install torch"):
            ask("cuda:0")
    world.devices.check_known()
    device_id = world.devices.described("cuda:0", a_device(), DeviceReach(), ready=False).device.id
    world.devices.unready("cuda:0", refusal)
    assert world.state(device_id) is DeviceState.QUARANTINED
    assert world.devices.get(device_id).state_reason == "install torch with CUDA"
    why = world.devices.never_ready("cuda:0")
    assert isinstance(why, NotSupported)
    assert (why.reason, why.message, why.facts) == (refusal.reason, refusal.message, {"device_id": device_id})
    world.ready()
    assert world.state(device_id) is DeviceState.AVAILABLE


def test_a_device_that_was_never_ready_says_why(world: World) -> None:
    def why(name: str = "cuda:0") -> tuple[ErrorReason, str] | None:
        found = world.devices.never_ready(name)
        return None if found is None else (found.reason, found.message)

    starting = why()
    assert starting is not None
    assert starting[0] is ErrorReason.STARTING
    world.devices.unready("cuda:0", FAULT)
    assert why() == (ErrorReason.STARTING, starting[1].replace("starting", "starting (last time: the driver failed)"))
    world.devices.unready("cuda:0", NotSupported("install torch with CUDA", ErrorReason.FEATURE_NOT_INSTALLED))
    assert why() == (ErrorReason.FEATURE_NOT_INSTALLED, "install torch with CUDA")
    assert why("cuda:7") is None

    device_id = world.devices.described("cuda:0", a_device(), DeviceReach(), ready=False).device.id
    world.devices.unready("cuda:0", FAULT)
    told = why(device_id)
    assert told is not None
    assert (told[0], "the driver failed" in told[1]) == (ErrorReason.STARTING, True)
    for _ in range(QUARANTINE_AFTER):
        world.devices.unready("cuda:0", FAULT)
    told = why(device_id)
    assert told is not None
    assert (told[0], "the driver failed" in told[1]) == (ErrorReason.DEVICE_RECOVERING, True)
    world.ready()
    assert why(device_id) is None, "it has been ready: its pool is there"


def test_an_etag_of_another_server_is_none_of_this_one(world: World) -> None:
    device_id = world.ready()
    other = Devices(world.log)
    other.described("cuda:0", a_device(), DeviceReach(capacity=2), ready=True)
    assert other.get(device_id).etag != world.devices.get(device_id).etag
    assert len(world.devices.get(device_id).etag) == 16


def test_the_etag_changes_with_settings_and_capabilities_and_not_with_the_state(world: World) -> None:
    device_id = world.ready()
    first = world.devices.get(device_id).etag
    world.devices.running(device_id, 1)
    world.devices.failed(device_id, FAULT)
    world.devices.worker_gone(device_id, None)
    world.ready()
    assert world.devices.get(device_id).etag == first
    world.devices.set_settings(device_id, DeviceSettings(draining=True))
    second = world.devices.get(device_id).etag
    assert second != first
    world.devices.set_settings(device_id, DeviceSettings(draining=True))
    assert world.devices.get(device_id).etag == second
    world.ready(a_device(driver_version="2"))
    third = world.devices.get(device_id).etag
    assert third != second
    assert world.devices.get(device_id).figures == DeviceFigures()


CHANGES: list[tuple[Callable[[Devices, str], object], Severity]] = [
    (lambda devices, name: devices.too_hot(name, True), Severity.WARNING),
    (lambda devices, name: devices.resetting(name, True), Severity.WARNING),
    (lambda devices, name: devices.quarantine(name, FAULT), Severity.ERROR),
    (lambda devices, name: devices.lost(name, "pulled out"), Severity.ERROR),
    (lambda devices, name: devices.running(name, 1), Severity.INFO),
    (lambda devices, name: devices.set_settings(name, DeviceSettings(draining=True)), Severity.INFO),
]


@pytest.mark.parametrize(("change", "severity"), CHANGES)
def test_a_change_of_state_is_as_severe_as_the_state(
    world: World, change: Callable[[Devices, str], object], severity: Severity
) -> None:
    device_id = world.ready()
    change(world.devices, device_id)
    assert world.events()[-1].severity is severity
    assert world.devices.events.present_state(device_id) == world.log.journal.last_sequence


def test_an_error_is_a_warning_and_the_end_of_silence_is_none(world: World) -> None:
    device_id = world.ready()
    assert world.devices.events.present_state(device_id) == 0
    world.devices.failed(device_id, FAULT)
    world.devices.silent(device_id, "no report for 60 s")
    world.devices.silent(device_id, "")
    told = {event.kind: (event.severity, event.message) for event in world.events()}
    assert told["device.error"] == (Severity.WARNING, "the driver failed")
    assert told["device.silent"] == (Severity.WARNING, "no report for 60 s")
    assert told["device.responsive"] == (Severity.INFO, "its work shows signs of life again")


def test_a_loss_is_the_cause_until_the_device_works_again(world: World) -> None:
    device_id = world.ready()
    lost = world.devices.lost(device_id, "pulled out")
    assert world.devices.events.fault(device_id) == lost
    world.devices.returned(device_id)
    assert world.state(device_id) is DeviceState.RECOVERING
    world.ready()
    assert world.devices.events.fault(device_id) == 0
    told = {event.kind: event for event in world.events()}
    assert told["device.lost"].failure is not None
    assert told["device.lost"].failure.reason is ErrorReason.DEVICE_LOST
    assert told["device.returned"].cause_sequence == lost


def test_a_change_of_state_names_what_caused_it_and_one_without_a_cause_names_nothing(world: World) -> None:
    device_id = world.ready()

    def cause() -> tuple[str, int]:
        """The kind of what caused the newest event, and how many events ago it was."""
        last = world.events()[-1]
        by_number = {entry.sequence: entry.value.kind for entry in world.log.journal.after(0)}
        number = last.cause_sequence
        return (by_number[number], world.log.journal.last_sequence - number) if number else ("", 0)

    world.devices.too_hot(device_id, True)
    assert cause() == ("", 0)
    world.devices.too_hot(device_id, False)
    assert world.events()[-1].message == "degraded → available"
    world.devices.silent(device_id, "no report for 60 s")
    assert cause() == ("device.silent", 1)
    assert world.events()[-1].message == "available → degraded: no report for 60 s"
    world.devices.silent(device_id, "")
    for _ in range(QUARANTINE_AFTER):
        world.devices.failed(device_id, FAULT)
    assert cause() == ("device.error", 1)
    world.devices.passed(device_id)
    assert cause() == ("device.quarantined", 1), "the fault goes before the error that led to it"
    world.devices.too_hot(device_id, True)
    assert cause() == ("", 0), "a fault that has been mended causes nothing more"
    world.devices.set_settings(device_id, DeviceSettings(enabled=False))
    assert cause() == ("device.settings_changed", 1), "what the caller changed goes before all"


def test_a_present_device_goes_before_a_lost_one_of_the_same_alias(world: World) -> None:
    old = world.ready()
    world.devices.lost(old, "replaced")
    new = world.devices.described("cuda:0", a_device("gpu-99999999"), DeviceReach(), ready=True).device.id
    assert world.devices.get("cuda:0").device.id == new
    assert world.devices.get(old).state is DeviceState.LOST


def test_disabled_goes_before_draining_and_lost_before_all(world: World) -> None:
    device_id = world.ready()
    world.devices.set_settings(device_id, DeviceSettings(enabled=False, draining=True))
    assert world.state(device_id) is DeviceState.DISABLED
    world.devices.lost(device_id, "gone")
    assert world.state(device_id) is DeviceState.LOST


def test_numbers_of_events_go_on_after_a_restart(world: World, tmp_path: Path) -> None:
    world.ready()
    before = world.log.journal.last_sequence
    world.database.close()
    again = EventLog(storage.open_database(tmp_path), tmp_path)
    assert again.journal.after(0)[-1].sequence == before
    assert again.tell(world.events()[0].domain, "x") > before


def test_a_quarantine_names_the_failed_check_or_counts_the_errors(world: World) -> None:
    device_id = world.ready()
    for _ in range(QUARANTINE_AFTER):
        world.devices.failed(device_id, FAULT)
    counted = f"{QUARANTINE_AFTER} errors in a row, {QUARANTINE_AFTER} in 10 minutes; the last: the driver failed"
    assert world.devices.get(device_id).state_reason == counted
    world.devices.passed(device_id)
    problem = InternalError(
        "health check `copy` failed on gpu: 3 bytes changed", ErrorReason.DRIVER_ERROR, check="copy"
    )
    world.devices.quarantine(device_id, problem)
    assert world.devices.get(device_id).state_reason == problem.message


def test_a_disabled_device_says_whether_the_start_or_a_caller_left_it_out(world: World) -> None:
    off = DeviceSettings(enabled=False)
    world.devices.described("cuda:0", a_device(), DeviceReach(), ready=False, settings=off)
    device_id = a_device().id
    assert world.devices.get(device_id).state_reason == "not chosen with --device; UpdateDevice enables it"
    world.devices.set_settings(device_id, DeviceSettings())
    world.devices.set_settings(device_id, off)
    assert world.devices.get(device_id).state_reason == "a caller has disabled it; UpdateDevice enables it"


def test_a_device_takes_work_until_it_is_drained_and_one_that_is_not_there_takes_none(world: World) -> None:
    device_id = world.ready()
    assert world.devices.takes_work(device_id)
    world.devices.set_settings(device_id, DeviceSettings(draining=True))
    assert not world.devices.takes_work(device_id)
    assert not world.devices.takes_work("gpu-none")


def test_what_is_recorded_of_a_device_decides_its_state(world: World) -> None:
    device_id = world.ready()
    for record, state in (
        (world.devices.resetting, DeviceState.RECOVERING),
        (world.devices.too_hot, DeviceState.DEGRADED),
    ):
        record(device_id, True)
        assert world.state(device_id) is state
        record(device_id, False)
        assert world.state(device_id) is DeviceState.AVAILABLE


@pytest.mark.parametrize(
    ("too_hot", "ceiling", "state"),
    [
        (True, 80.0, DeviceState.DEGRADED),
        (True, None, DeviceState.AVAILABLE),
        (False, 80.0, DeviceState.AVAILABLE),
        (False, None, DeviceState.AVAILABLE),
    ],
)
def test_a_device_without_a_ceiling_is_not_too_hot(
    world: World, too_hot: bool, ceiling: float | None, state: DeviceState
) -> None:
    device_id = world.ready()
    world.devices.set_settings(device_id, DeviceSettings(max_temperature_celsius=70.0))
    world.devices.too_hot(device_id, too_hot)
    world.devices.set_settings(device_id, DeviceSettings(max_temperature_celsius=ceiling))
    assert world.state(device_id) is state


def test_whoever_listens_hears_each_change_with_the_view_before_it(world: World) -> None:
    heard: list[tuple[int, int | None]] = []
    world.devices.listeners.append(lambda view, before: heard.append((view.running, before and before.running)))
    device_id = world.ready()
    world.devices.running(device_id, 2)
    world.devices.running(device_id, 2)
    world.devices.running(device_id, 0)
    assert heard == [(0, None), (2, 0), (0, 2)]


def test_a_lost_device_is_found_and_not_there(world: World) -> None:
    device_id = world.ready()
    assert world.devices.there("cuda:0") is world.devices.get(device_id)
    world.devices.lost(device_id, "pulled out")
    assert world.devices.get("cuda:0").device.id == device_id
    with pytest.raises(DeviceOpsError) as refused:
        world.devices.there("cuda:0")
    assert (refused.value.reason, refused.value.facts["device_id"]) == (ErrorReason.DEVICE_LOST, device_id)


def test_after_another_try_the_old_refusal_is_forgotten(world: World) -> None:
    device_id = world.devices.described("cuda:0", a_device(), DeviceReach(), ready=False).device.id
    world.devices.unready("cuda:0", NotSupported("install torch with CUDA", ErrorReason.FEATURE_NOT_INSTALLED))
    world.devices.tried_again(device_id)
    assert world.state(device_id) is DeviceState.STARTING


def test_a_benchmark_gives_the_device_its_figures_and_another_etag(world: World) -> None:
    before = world.devices.get(world.ready())
    report = BenchmarkReport(
        device_id=before.device.id,
        results=(),
        warnings=(),
        libraries=(),
        device_name="A card",
        driver_version="1",
        start_time_s=0.0,
        duration_s=1.0,
    )
    world.devices.measured(report, DeviceFigures(relative_speed=2.0))
    after = world.devices.get(before.device.id)
    assert (after.benchmark, after.figures.relative_speed) == (report, 2.0)
    assert after.etag != before.etag


def test_accelerators_are_listed_before_the_cpu(world: World) -> None:
    world.devices.described("cpu", a_device("cpu", aliases=(), backend=Backend.CPU), DeviceReach(), ready=True)
    world.ready()
    assert [view.device.id for view in world.devices.list()] == ["gpu-1a2b3c4d", "cpu"]


def test_silence_is_told_once_and_ends_with_the_next_report(world: World) -> None:
    device_id = world.ready()
    world.devices.silent("gpu-none", "no report")
    before = len(world.events())
    for why in ("no report for 60 s", "no report for 60 s"):
        world.devices.silent(device_id, why)
    assert (world.state(device_id), world.devices.get(device_id).state_reason) == (DeviceState.DEGRADED, why)
    assert world.devices.hangs()
    told = len(world.events()) - before
    assert told == 2, "that it is silent, and that it is degraded"
    world.devices.silent(device_id, "")
    assert world.state(device_id) is DeviceState.AVAILABLE
    assert not world.devices.hangs()


def test_no_device_that_takes_work_is_no_hang(world: World) -> None:
    device_id = world.ready()
    world.devices.silent(device_id, "no report for 60 s")
    world.devices.set_settings(device_id, DeviceSettings(enabled=False))
    assert not world.devices.hangs()


async def test_whoever_waits_for_a_state_gets_the_first_view_that_has_it(world: World) -> None:
    waits = asyncio.create_task(world.devices.until("gpu-1a2b3c4d", lambda view: view.state is DeviceState.DRAINING))
    await asyncio.sleep(0)
    device_id = world.ready()
    await asyncio.sleep(0)
    assert not waits.done()
    world.devices.set_settings(device_id, DeviceSettings(draining=True))
    assert await asyncio.wait_for(waits, 10) == world.devices.get(device_id)


def test_a_view_is_updated_by_what_lasts_and_its_state_has_a_time_of_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(1000, 2000))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    device_id = world.ready()
    first = world.devices.get(device_id)
    world.devices.silent(device_id, "no report for 60 s")
    silent = world.devices.get(device_id)
    assert silent.state_time_s > first.state_time_s
    assert (silent.update_time_s, silent.etag) == (first.update_time_s, first.etag)
    world.devices.set_settings(device_id, DeviceSettings(goal=DeviceGoal.LATENCY))
    changed = world.devices.get(device_id)
    assert changed.update_time_s > silent.update_time_s
    assert (changed.state_time_s, int(changed.etag, 16)) == (silent.state_time_s, int(silent.etag, 16) + 1)


def test_a_restart_of_its_worker_is_no_change_of_the_device(world: World) -> None:
    first = world.devices.get(world.ready(a_device(worker_pid=100, probe_time_s=10.0)))
    again = world.devices.get(world.ready(a_device(worker_pid=200, probe_time_s=20.0)))
    assert (again.device.worker_pid, again.device.probe_time_s) == (200, 20.0)
    assert (again.etag, again.update_time_s) == (first.etag, first.update_time_s)
    other = world.devices.get(world.ready(a_device(worker_pid=200, probe_time_s=20.0, driver_version="2")))
    assert int(other.etag, 16) == int(first.etag, 16) + 1
