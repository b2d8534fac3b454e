"""DeviceService through a whole server: two simulated devices in worker processes of their own, and the host's CPU."""

import math
import random
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from deviceops.common.v1 import job_event_pb2
from deviceops.device.v1 import (
    device_advice_pb2,
    device_health_pb2,
    device_pb2,
    device_service_pb2,
    device_status_pb2,
    device_work_pb2,
)
from deviceops.device.v1.device_service_pb2_grpc import DeviceServiceStub
from deviceops.memory.v1 import memory_service_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from tests.server import asking
from tests.server.asking import CALL_S, LONG_STEPS, Refusal, kind, kinds, picture, refused
from tests.server.harness import RunningServer, running_server
from tests.server.sim import Events, Script, device, sim, simulated, state

pb = device_service_pb2
Machine = tuple[RunningServer, Script, Events]

HOT = "[device.temperature]\nidle_celsius = 35\nloaded_celsius = 70\nheating_s = 0"
"""As warm as its load says, at once."""
ENDED = [
    job_event_pb2.JOB_STATE_SUCCEEDED,
    job_event_pb2.JOB_STATE_PARTIALLY_SUCCEEDED,
    job_event_pb2.JOB_STATE_FAILED,
    job_event_pb2.JOB_STATE_CANCELLED,
]
RUNTIME_BYTES = 256 << 20
"""What a simulated device uses without a model."""
ALL = ("sim-0", "sim-1", "cpu")
ODD_NAMES = ["", "nobody", "sim", "SIM-0", "sim-0\0", "../x", "x" * 255, "\u202esim-0", "' OR 1=1"]
DEFAULTS = device_pb2.DeviceSettings(enabled=True, goal=device_pb2.DEVICE_GOAL_BALANCED)
EVERY_SETTING = [field.name for field in device_pb2.DeviceSettings.DESCRIPTOR.fields]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One server for all tests of this file."""
    with simulated(tmp_path_factory.mktemp("sim"), sim(0, HOT), sim(1)) as machine:
        yield machine


@pytest.fixture
def server(machine: Machine) -> Iterator[RunningServer]:
    """The server; a test leaves its simulated devices as they were."""
    server = machine[0]
    yield server
    for name in ("sim-0", "sim-1"):
        update(server, name, EVERY_SETTING, settings=DEFAULTS)


def update(
    server: RunningServer,
    name: str,
    mask: list[str],
    settings: device_pb2.DeviceSettings | None = None,
    **fields: Any,
) -> pb.UpdateDeviceResponse:
    request = pb.UpdateDeviceRequest(device_id=name, settings=settings, update_mask=FieldMask(paths=mask), **fields)
    return server.device.UpdateDevice(request, timeout=CALL_S)


def choose(server: RunningServer, name: str, **settings: Any) -> pb.UpdateDeviceResponse:
    """UpdateDevice with these settings and the mask that names them."""
    return update(server, name, list(settings), settings=device_pb2.DeviceSettings(**settings))


def listed(server: RunningServer, **wanted: Any) -> list[str]:
    request = pb.ListDevicesRequest(filter=device_pb2.DeviceFilter(**wanted))
    return [one.id for one in server.device.ListDevices(request, timeout=CALL_S).devices]


def status(server: RunningServer, name: str) -> device_status_pb2.DeviceStatus:
    return server.device.GetDeviceStatus(pb.GetDeviceStatusRequest(device_id=name), timeout=CALL_S).status


def refresh(server: RunningServer, **fields: Any) -> pb.RefreshDevicesResponse:
    return server.device.RefreshDevices(pb.RefreshDevicesRequest(**fields), timeout=CALL_S)


def check(server: RunningServer, name: str, **fields: Any) -> device_health_pb2.DeviceHealthReport:
    request = pb.CheckDeviceHealthRequest(device_id=name, **fields)
    return server.device.CheckDeviceHealth(request, timeout=CALL_S).report


def advice(server: RunningServer, name: str, **fields: Any) -> device_advice_pb2.DeviceAdvice:
    request = pb.RecommendDeviceSettingsRequest(device_id=name, **fields)
    return server.device.RecommendDeviceSettings(request, timeout=CALL_S).advice


def benchmark(server: RunningServer, options: job_event_pb2.JobOptions | None = None, **fields: Any) -> Any:
    """The door, as a call to iterate or leave."""
    work = device_work_pb2.DeviceBenchmark(**fields)
    return server.device.BenchmarkDevice(pb.BenchmarkDeviceRequest(device_benchmark=work, options=options))


def reset(server: RunningServer, request_id: str = "", **fields: Any) -> Any:
    """The door, as a call to iterate or leave."""
    work = device_work_pb2.DeviceReset(**fields)
    return server.device.ResetDevice(pb.ResetDeviceRequest(device_reset=work, request_id=request_id), timeout=CALL_S)


def on(*names: str) -> job_event_pb2.JobOptions:
    return job_event_pb2.JobOptions(devices=job_event_pb2.DeviceSelector(device_ids=names))


def events_after(server: RunningServer, sequence: int | None, **wanted: Any) -> Any:
    """WatchEvents, as a call; its first message is still to be read."""
    request = processing_service_pb2.WatchEventsRequest(
        after_sequence=sequence, filter=processing_service_pb2.SystemEventFilter(**wanted)
    )
    return server.processing.WatchEvents(request, timeout=CALL_S)


def newest(server: RunningServer) -> int:
    """The number of the newest event."""
    call = events_after(server, None)
    try:
        return next(call).last_sequence
    finally:
        call.cancel()


@contextmanager
def at_work(server: RunningServer, *names: str) -> Generator[list[str]]:
    """A job that does not end by itself denoises on each of these devices."""
    jobs = [asking.submit(server, picture(steps=LONG_STEPS), on(name)) for name in names]
    try:
        for job_id in jobs:
            asking.wait_for_step(server, job_id)
        yield jobs
    finally:
        stop(server, *jobs)


def stop(server: RunningServer, *jobs: str) -> None:
    """Cancel jobs, and wait until they have left their device."""
    for job_id in jobs:
        if asking.job_of(server, job_id).state not in ENDED:
            asking.cancel(server, job_id)
    for job_id in jobs:
        asking.watch(server, job_id)
    # A job's last event comes a moment before its device is free.
    with all_devices(server) as watching:
        asking.until(watching, lambda answer: not {*jobs} & {*running_jobs(answer)})


@contextmanager
def all_devices(server: RunningServer) -> Generator[Any]:
    """WatchDeviceStatus of every device."""
    request = pb.WatchDeviceStatusRequest(interval=Duration(nanos=100_000_000))
    call = server.device.WatchDeviceStatus(request, timeout=CALL_S)
    try:
        yield call
    finally:
        call.cancel()


def running_jobs(answer: pb.WatchDeviceStatusResponse) -> Iterator[str]:
    """On any device."""
    for one in answer.statuses:
        yield from one.workload.running_job_ids


# Listing and reading: DEV-01 … DEV-04.


def test_devices_are_listed_the_cpu_last_and_switched_off(server: RunningServer) -> None:
    assert listed(server) == list(ALL)
    assert [state(server, name) for name in ALL] == ["AVAILABLE", "AVAILABLE", "DISABLED"]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({"kinds": [device_pb2.DEVICE_KIND_SIMULATED]}, ["sim-0", "sim-1"]),
        ({"kinds": [device_pb2.DEVICE_KIND_CPU, device_pb2.DEVICE_KIND_SIMULATED]}, list(ALL)),
        ({"kinds": [device_pb2.DEVICE_KIND_NPU]}, []),
        ({"backends": [device_pb2.DEVICE_BACKEND_CPU]}, ["cpu"]),
        ({"backends": [device_pb2.DEVICE_BACKEND_CUDA, device_pb2.DEVICE_BACKEND_SIMULATED]}, ["sim-0", "sim-1"]),
        ({"states": [device_pb2.DEVICE_STATE_DISABLED]}, ["cpu"]),
        ({"states": [device_pb2.DEVICE_STATE_LOST]}, []),
        ({"kinds": [device_pb2.DEVICE_KIND_CPU], "backends": [device_pb2.DEVICE_BACKEND_SIMULATED]}, []),
        ({"kinds": [device_pb2.DEVICE_KIND_CPU], "states": [device_pb2.DEVICE_STATE_DISABLED]}, ["cpu"]),
        # "Not said" is every one, as the contract says of each of the three.
        ({"kinds": [device_pb2.DEVICE_KIND_UNSPECIFIED]}, list(ALL)),
        ({"backends": [device_pb2.DEVICE_BACKEND_UNSPECIFIED]}, list(ALL)),
        ({"states": [device_pb2.DEVICE_STATE_UNSPECIFIED]}, list(ALL)),
    ],
)
def test_a_filter_lets_through_what_fits_all_of_it(
    server: RunningServer, wanted: dict[str, Any], ids: list[str]
) -> None:
    assert listed(server, **wanted) == ids


@pytest.mark.parametrize("name", ["sim-1", "sim:1"])
def test_a_device_is_found_by_id_and_alias_and_answers_by_its_id(server: RunningServer, name: str) -> None:
    found = device(server, name)
    assert found.id == "sim-1"
    assert "sim:1" in found.aliases
    assert status(server, name).device_id == "sim-1"


def test_a_simulated_device_tells_all_that_it_is(server: RunningServer) -> None:
    found = device(server, "sim-0")
    assert (found.kind, found.backend) == (device_pb2.DEVICE_KIND_SIMULATED, device_pb2.DEVICE_BACKEND_SIMULATED)
    assert found.display_name == "Simulated device"
    assert found.driver.supported
    assert not found.driver.unsupported_reason
    can = found.capabilities
    assert can.total_memory_bytes == 8 << 30
    assert list(can.tasks) == ["text_to_image"]
    assert can.max_concurrent_jobs == 8
    assert can.allocation_alignment_bytes > 0
    assert set(can.controls) == set(EVERY_SETTING)
    assert {"utilization_ratio", "temperature_celsius", "power_watts"} <= set(can.telemetry)
    assert all(one.supported or one.detail for one in can.precisions)
    assert len({one.precision for one in can.precisions}) == len(can.precisions) >= 2
    assert found.settings == DEFAULTS
    assert found.etag
    for name in ("discover_time", "update_time", "state_time"):
        assert found.HasField(name)
    assert can.HasField("probe_time")
    # What nobody can know of it is absent.
    assert not found.HasField("state_failure")
    assert not found.identity.HasField("adapter_luid")
    assert not found.identity.pci_bus_id
    assert not can.HasField("max_image_size")


def test_the_cpu_tells_what_it_is_without_a_worker(server: RunningServer) -> None:
    found = device(server, "cpu:0")
    assert found.id == "cpu"
    assert found.kind == device_pb2.DEVICE_KIND_CPU
    assert found.display_name
    assert found.state_reason
    assert not found.settings.enabled
    # What it can do is found by trying, which only a worker does.
    assert not found.HasField("capabilities")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_of_no_device_is_told_as_such_by_every_call(server: RunningServer, name: str) -> None:
    mask = FieldMask(paths=["draining"])
    calls: list[Callable[[], Any]] = [
        lambda: device(server, name),
        lambda: status(server, name),
        lambda: server.device.WatchDeviceStatus(pb.WatchDeviceStatusRequest(device_ids=["sim-0", name])),
        lambda: server.device.UpdateDevice(pb.UpdateDeviceRequest(device_id=name, update_mask=mask)),
        lambda: check(server, name),
        lambda: advice(server, name),
        lambda: benchmark(server, device_id=name),
        lambda: reset(server, device_id=name),
    ]
    for call in calls:
        told = refused(call)
        assert told.code is grpc.StatusCode.NOT_FOUND
        assert told.reason == "DEVICE_NOT_FOUND"
        assert "sim-0" in told.message
        assert len(told.message) < 1000


def test_a_device_is_listed_at_once_and_probed_when_its_worker_has_started() -> None:
    with running_server("--device", "sim", held=True) as young:
        early = device(young, "sim-0")
        assert early.state == device_pb2.DEVICE_STATE_STARTING
        assert early.display_name
        assert not early.HasField("capabilities")
        assert status(young, "sim-0").state == device_pb2.DEVICE_STATE_STARTING
        pool = memory_service_pb2.GetMemoryPoolRequest(memory_pool_id="sim-0")
        assert refused(lambda: young.memory.GetMemoryPool(pool, timeout=CALL_S)).reason == "STARTING"
        assert refused(lambda: device(young, "sim-1")).reason == "DEVICE_NOT_FOUND"


# Settings: DEV-09, DEV-11, DEV-16.


@pytest.mark.parametrize("mask", [[], ["*"], ["enable"], ["enabled", "settings.goal"], ["capabilities"], ["id"], [""]])
def test_a_mask_that_names_no_setting_is_refused(server: RunningServer, mask: list[str]) -> None:
    before = device(server, "sim-0")
    told = refused(lambda: update(server, "sim-0", mask, settings=device_pb2.DeviceSettings()))
    assert told.reason == "INVALID_FIELD"
    assert "update_mask" in told.fields
    assert device(server, "sim-0") == before


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"max_concurrent_jobs": 0}, "settings.max_concurrent_jobs"),
        ({"max_concurrent_jobs": -1}, "settings.max_concurrent_jobs"),
        ({"max_concurrent_jobs": 2**31 - 1}, "settings.max_concurrent_jobs"),
        ({"max_temperature_celsius": 39.9}, "settings.max_temperature_celsius"),
        ({"max_temperature_celsius": math.nan}, "settings.max_temperature_celsius"),
        ({"max_temperature_celsius": math.inf}, "settings.max_temperature_celsius"),
        ({"power_limit_watts": 99.0}, "settings.power_limit_watts"),
        ({"power_limit_watts": 251.0}, "settings.power_limit_watts"),
        ({"power_limit_watts": -1.0}, "settings.power_limit_watts"),
        ({"power_limit_watts": math.nan}, "settings.power_limit_watts"),
        ({"goal": 99}, "settings.goal"),
    ],
)
def test_a_value_out_of_range_changes_nothing(server: RunningServer, settings: dict[str, Any], field: str) -> None:
    before = device(server, "sim-0")
    told = refused(lambda: choose(server, "sim-0", **settings, draining=True))
    assert told.reason == "INVALID_FIELD"
    assert told.fields == [field]
    assert device(server, "sim-0") == before


def test_all_that_is_wrong_is_told_at_once(server: RunningServer) -> None:
    settings = device_pb2.DeviceSettings(max_temperature_celsius=1, max_concurrent_jobs=0)
    mask = ["max_temperature_celsius", "max_concurrent_jobs", "colour"]
    told = refused(lambda: update(server, "sim-0", mask, settings=settings))
    wrong = {"update_mask", "settings.max_temperature_celsius", "settings.max_concurrent_jobs"}
    assert set(told.fields) == wrong


def test_a_setting_changes_the_etag_and_the_same_again_does_not(server: RunningServer) -> None:
    first = device(server, "sim-0")
    second = choose(server, "sim-0", goal=device_pb2.DEVICE_GOAL_LATENCY).device
    assert second.etag != first.etag
    assert second.update_time.ToNanoseconds() > first.update_time.ToNanoseconds()
    assert choose(server, "sim-0", goal=device_pb2.DEVICE_GOAL_LATENCY).device == second
    # A field that the mask does not name does not count.
    third = update(server, "sim-0", ["goal"], settings=device_pb2.DeviceSettings(enabled=False, draining=True)).device
    assert third.settings == DEFAULTS


def test_an_etag_that_somebody_outdated_is_refused(server: RunningServer) -> None:
    before = device(server, "sim-0")
    new = choose(server, "sim-0", goal=device_pb2.DEVICE_GOAL_MEMORY).device
    settings = device_pb2.DeviceSettings(goal=device_pb2.DEVICE_GOAL_POWER)
    for etag in (before.etag, "nonsense", "0"):
        told = refused(lambda etag=etag: update(server, "sim-0", ["goal"], settings=settings, etag=etag))
        assert told.code is grpc.StatusCode.ABORTED
        assert told.reason == "ETAG_MISMATCH"
        assert told.facts["etag"] == new.etag
    assert device(server, "sim-0") == new
    changed = update(server, "sim-0", ["goal"], settings=settings, etag=new.etag).device
    assert changed.settings.goal == device_pb2.DEVICE_GOAL_POWER


def test_of_two_with_the_same_etag_one_wins(server: RunningServer) -> None:
    etag = device(server, "sim-0").etag

    def change(watts: float) -> str:
        settings = device_pb2.DeviceSettings(power_limit_watts=watts)
        try:
            update(server, "sim-0", ["power_limit_watts"], settings=settings, etag=etag)
        except grpc.RpcError as error:
            return Refusal(error).reason
        return "changed"

    calls = [lambda watts=watts: change(watts) for watts in range(110, 118)]
    assert sorted(asking.together(*calls)) == ["ETAG_MISMATCH"] * 7 + ["changed"]


def test_changes_of_different_settings_at_once_all_hold(server: RunningServer) -> None:
    wanted: dict[str, Any] = {
        "goal": device_pb2.DEVICE_GOAL_POWER,
        "power_limit_watts": 150.0,
        "max_temperature_celsius": 90.0,
        "max_concurrent_jobs": 1,
    }
    asking.together(*(lambda name=name: choose(server, "sim-1", **{name: wanted[name]}) for name in wanted))
    assert device(server, "sim-1").settings == device_pb2.DeviceSettings(enabled=True, **wanted)


def test_validate_only_tells_what_would_be_and_changes_nothing(server: RunningServer) -> None:
    with at_work(server, "sim-0") as (job_id,):
        before, sequence = device(server, "sim-0"), newest(server)
        settings = device_pb2.DeviceSettings(enabled=False)
        would = update(server, "sim-0", ["enabled"], settings=settings, validate_only=True)
        assert would.device.state == device_pb2.DEVICE_STATE_DISABLED
        assert not would.device.settings.enabled
        assert would.finishing_job_ids == [job_id]
        assert device(server, "sim-0") == before
        assert newest(server) == sequence
        bad = device_pb2.DeviceSettings(max_temperature_celsius=500)
        told = refused(lambda: update(server, "sim-0", ["max_temperature_celsius"], settings=bad, validate_only=True))
        assert told.reason == "INVALID_FIELD"


def test_draining_ends_what_runs_and_starts_nothing(machine: Machine, server: RunningServer) -> None:
    running = asking.submit(server, picture(steps=LONG_STEPS), on("sim-0"))
    asking.wait_for_step(server, running)
    answer = choose(server, "sim-0", draining=True)
    assert answer.device.state == device_pb2.DEVICE_STATE_DRAINING
    assert list(answer.finishing_job_ids) == [running]
    assert not answer.stranded_job_ids
    bound = asking.submit(server, options=on("sim-0"))
    free = asking.submit(server)
    # Whatever may run elsewhere does; what may not waits, and says so.
    assert asking.watch(server, free)[-1].event.succeeded.receipt.device_id == "sim-1"
    assert asking.job_of(server, bound).state == job_event_pb2.JOB_STATE_QUEUED
    assert list(choose(server, "sim-0", draining=True).stranded_job_ids) == [bound]
    assert status(server, "sim-0").workload.running_job_ids == [running]
    stop(server, running)
    assert state(server, "sim-0") == "DRAINING"
    assert asking.job_of(server, bound).state == job_event_pb2.JOB_STATE_QUEUED
    choose(server, "sim-0", draining=False)
    assert asking.watch(server, bound)[-1].event.succeeded.receipt.device_id == "sim-0"
    assert state(server, "sim-0") == "AVAILABLE"


def test_a_disabled_device_lets_its_job_end_and_takes_none(server: RunningServer) -> None:
    with at_work(server, "sim-0") as (running,):
        answer = choose(server, "sim-0", enabled=False)
        assert answer.device.state == device_pb2.DEVICE_STATE_DISABLED
        assert list(answer.finishing_job_ids) == [running]
        bound = asking.submit(server, options=on("sim-0"))
        assert asking.job_of(server, running).state == job_event_pb2.JOB_STATE_RUNNING
        told = refused(lambda: benchmark(server, device_id="sim-0"))
        assert told.code is grpc.StatusCode.FAILED_PRECONDITION
        assert told.reason == "DEVICE_DISABLED"
        assert listed(server, states=[device_pb2.DEVICE_STATE_DISABLED]) == ["sim-0", "cpu"]
    assert asking.job_of(server, bound).state == job_event_pb2.JOB_STATE_QUEUED
    choose(server, "sim-0", enabled=True)
    assert kind(asking.watch(server, bound)[-1]) == "succeeded"


def test_concurrency_holds_from_the_next_job_on(server: RunningServer) -> None:
    choose(server, "sim-1", max_concurrent_jobs=1)
    with at_work(server, "sim-1"):
        second = asking.submit(server, picture(steps=LONG_STEPS), on("sim-1"))
        assert status(server, "sim-1").workload.queued_count == 1
        assert asking.job_of(server, second).state == job_event_pb2.JOB_STATE_QUEUED
        choose(server, "sim-1", max_concurrent_jobs=2)
        asking.wait_for_step(server, second)
        assert status(server, "sim-1").workload.running_count == 2
        stop(server, second)


def test_a_power_limit_is_in_force_when_the_answer_comes_and_goes_back_to_the_default(server: RunningServer) -> None:
    assert status(server, "sim-0").power_limit_watts == 250
    answer = choose(server, "sim-0", power_limit_watts=120.0)
    assert answer.device.settings.power_limit_watts == 120
    assert status(server, "sim-0").power_limit_watts == 120
    cleared = update(server, "sim-0", ["power_limit_watts"])
    assert not cleared.device.settings.HasField("power_limit_watts")
    assert status(server, "sim-0").power_limit_watts == 250


def test_a_device_above_its_ceiling_is_degraded_until_it_is_cool(machine: Machine, server: RunningServer) -> None:
    _, _, events = machine
    choose(server, "sim-0", max_temperature_celsius=50.0)
    with at_work(server, "sim-0"):
        assert status(server, "sim-0").temperature_celsius == 70
        hot = device(server, "sim-0")
        assert hot.state == device_pb2.DEVICE_STATE_DEGRADED
        assert "max_temperature_celsius" in hot.state_reason
        # Work goes to the cool one first.
        assert asking.watch(server, asking.submit(server))[-1].event.succeeded.receipt.device_id == "sim-1"
    events.until_state("sim-0", "DEGRADED")
    events.until_state("sim-0", "AVAILABLE")
    assert status(server, "sim-0").temperature_celsius == 35


def test_a_ceiling_that_is_taken_away_degrades_no_more(machine: Machine, server: RunningServer) -> None:
    choose(server, "sim-0", max_temperature_celsius=50.0)
    with at_work(server, "sim-0"):
        status(server, "sim-0")
        assert state(server, "sim-0") == "DEGRADED"
        assert update(server, "sim-0", ["max_temperature_celsius"]).device.state == device_pb2.DEVICE_STATE_BUSY


@pytest.mark.parametrize("validate_only", [False, True])
def test_what_a_device_does_not_have_is_refused_and_told(server: RunningServer, validate_only: bool) -> None:
    before = device(server, "cpu")
    settings = device_pb2.DeviceSettings(power_limit_watts=50, goal=device_pb2.DEVICE_GOAL_POWER)
    told = refused(
        lambda: update(server, "cpu", ["goal", "power_limit_watts"], settings=settings, validate_only=validate_only)
    )
    assert told.reason == "NOT_SUPPORTED_ON_DEVICE"
    assert "power_limit_watts" in told.facts["settings"]
    assert device(server, "cpu") == before


def test_a_request_id_changes_once_and_gives_the_same_answer(server: RunningServer) -> None:
    request_id = str(uuid.uuid4())
    settings = device_pb2.DeviceSettings(goal=device_pb2.DEVICE_GOAL_LATENCY)
    first = update(server, "sim-0", ["goal"], settings=settings, request_id=request_id)
    choose(server, "sim-0", goal=device_pb2.DEVICE_GOAL_POWER)
    assert update(server, "sim-0", ["goal"], settings=settings, request_id=request_id) == first
    assert device(server, "sim-0").settings.goal == device_pb2.DEVICE_GOAL_POWER
    told = refused(lambda: update(server, "sim-1", ["goal"], settings=settings, request_id=request_id))
    assert told.code is grpc.StatusCode.ALREADY_EXISTS
    assert told.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(("field", "value"), [("request_id", "x" * 65), ("request_id", "a b"), ("cause", "x" * 256)])
def test_words_that_are_too_long_are_refused(server: RunningServer, field: str, value: str) -> None:
    words: dict[str, Any] = {field: value}
    told = refused(lambda: update(server, "sim-0", ["draining"], **words))
    assert told.reason == "INVALID_FIELD"
    assert told.fields == [field]


def test_a_change_is_an_event_with_its_cause(server: RunningServer) -> None:
    sequence = newest(server)
    settings = device_pb2.DeviceSettings(goal=device_pb2.DEVICE_GOAL_MEMORY)
    update(server, "sim-1", ["goal"], settings=settings, cause="the night shift")
    call = events_after(server, sequence, kinds=["device"])
    next(call)
    event = next(call).event
    call.cancel()
    assert event.kind == "device.settings_changed"
    assert event.message == "the night shift"
    assert event.device == device(server, "sim-1")


# State and etag: DEV-05, DEV-16.


def test_the_state_changes_and_the_etag_does_not(server: RunningServer) -> None:
    before = device(server, "sim-1")
    with at_work(server, "sim-1"):
        busy = device(server, "sim-1")
        assert busy.state == device_pb2.DEVICE_STATE_BUSY
        assert busy.state_time.ToNanoseconds() > before.state_time.ToNanoseconds()
        assert (busy.etag, busy.update_time) == (before.etag, before.update_time)
    assert device(server, "sim-1").etag == before.etag


def test_probing_again_changes_an_etag_only_where_something_is_different(server: RunningServer) -> None:
    before = [device(server, name) for name in ("sim-0", "sim-1")]
    found = refresh(server, probe_again=True)
    assert not found.changed_ids
    after = [device(server, name) for name in ("sim-0", "sim-1")]
    assert [one.etag for one in after] == [one.etag for one in before]
    for old, new in zip(before, after, strict=True):
        assert new.capabilities.probe_time.ToNanoseconds() > old.capabilities.probe_time.ToNanoseconds()


def test_every_one_who_asks_for_a_probe_gets_one(server: RunningServer) -> None:
    before = device(server, "sim-0").capabilities.probe_time.ToNanoseconds()
    asking.together(*[lambda: refresh(server)] * 3, lambda: refresh(server, probe_again=True))
    assert device(server, "sim-0").capabilities.probe_time.ToNanoseconds() > before


@pytest.mark.parametrize("seconds", [0.0, 0.09, 60.1, -1.0, 1e9])
def test_a_refresh_with_a_timeout_out_of_range_is_refused(server: RunningServer, seconds: float) -> None:
    span = {"seconds": math.trunc(seconds), "nanos": round((seconds - math.trunc(seconds)) * 1e9)}
    told = refused(lambda: refresh(server, timeout_per_backend=span))
    assert told.fields == ["timeout_per_backend"]


def test_a_refresh_tells_who_vanished_and_who_came_back(machine: Machine, server: RunningServer) -> None:
    _, script, events = machine
    quiet = refresh(server)
    assert [one.id for one in quiet.devices] == list(ALL)
    assert not [*quiet.added_ids, *quiet.lost_ids, *quiet.returned_ids, *quiet.backend_failures]
    assert quiet.HasField("duration")
    etag = device(server, "sim-1").etag
    bound = asking.submit(server, picture(steps=LONG_STEPS), on("sim-1"))
    asking.wait_for_step(server, bound)
    chain = events_after(server, newest(server), resource_ids=["sim-1"])
    next(chain)
    script.write(sim(0, HOT), sim(1, "present = false"))
    # The server looks by itself too: whoever is first tells it.
    told = list(refresh(server).lost_ids)
    lost = events.until(lambda event: event.kind == "device.lost")
    assert lost.resource_id == "sim-1"
    # Who follows the device hears also of what its loss did to others.
    interrupted = job_event_pb2.JOB_STATE_INTERRUPTED
    event = asking.until(chain, lambda update: update.event.job.state == interrupted).event
    chain.cancel()
    assert (event.resource_id, event.cause_sequence) == (bound, lost.sequence)
    stop(server, bound)
    assert told in ([], ["sim-1"])
    assert listed(server) == ["sim-0", "cpu"]
    assert listed(server, states=[device_pb2.DEVICE_STATE_LOST]) == ["sim-1"]
    assert "sim-1" in [one.id for one in refresh(server).devices]
    there = status(server, "sim-1")
    assert there.state == device_pb2.DEVICE_STATE_LOST
    assert not there.HasField("utilization_ratio")
    for call in (
        lambda: choose(server, "sim-1", draining=True),
        lambda: check(server, "sim-1"),
        lambda: benchmark(server, device_id="sim-1"),
        lambda: reset(server, device_id="sim-1"),
    ):
        assert refused(call).reason == "DEVICE_LOST"
    script.write(sim(0, HOT), sim(1))
    returned = events.until(lambda event: event.kind == "device.returned")
    assert returned.cause_sequence == lost.sequence
    events.until_state("sim-1", "AVAILABLE")
    assert device(server, "sim-1").etag == etag


# Figures of the moment: DEV-06, DEV-07.


def test_a_device_at_work_says_so(server: RunningServer) -> None:
    idle = status(server, "sim-1")
    assert idle.utilization_ratio == 0
    assert idle.workload.running_count == 0
    assert idle.workload.queued_count == 0
    with at_work(server, "sim-1") as (job_id,):
        busy = status(server, "sim-1")
        assert busy.utilization_ratio == 1
        assert busy.state == device_pb2.DEVICE_STATE_BUSY
        assert busy.workload.running_job_ids == [job_id]
        assert busy.workload.running_count == 1
        assert idle.used_memory_bytes >= RUNTIME_BYTES
        assert busy.total_memory_bytes == 8 << 30
        assert busy.power_watts > idle.power_watts
        assert busy.worker_uptime.ToNanoseconds() > 0
        # Its worker is asked for its memory once a second.
        request = pb.WatchDeviceStatusRequest(device_ids=["sim-1"], interval=Duration(nanos=100_000_000))
        watching = server.device.WatchDeviceStatus(request, timeout=CALL_S)
        asking.until(watching, lambda answer: answer.statuses[0].used_memory_bytes > RUNTIME_BYTES)
        watching.cancel()
    assert status(server, "sim-1").utilization_ratio == 0


def test_a_status_leaves_away_what_its_device_does_not_list(server: RunningServer) -> None:
    told = {field.name for field, _ in status(server, "sim-0").ListFields()}
    assert "temperature_celsius" in told
    assert "fan_speed_fraction" not in told
    assert not status(server, "cpu").HasField("worker_uptime")


def test_all_devices_are_watched_unless_some_are_named(server: RunningServer) -> None:
    for names, ids in (((), list(ALL)), (("sim:1", "sim-1"), ["sim-1"])):
        request = pb.WatchDeviceStatusRequest(device_ids=names, interval=Duration(nanos=100_000_000))
        call = server.device.WatchDeviceStatus(request, timeout=CALL_S)
        first, second = next(call), next(call)
        call.cancel()
        assert sorted(one.device_id for one in first.statuses) == sorted(ids)
        times = [answer.statuses[0].sample_time.ToNanoseconds() for answer in (first, second)]
        assert times[0] < times[1]


@pytest.mark.parametrize("interval", [{"nanos": 99_999_999}, {"seconds": 61}, {"seconds": -1}, {}])
def test_a_watch_at_an_impossible_interval_is_refused(server: RunningServer, interval: dict[str, int]) -> None:
    request = pb.WatchDeviceStatusRequest(interval=Duration(**interval))
    told = refused(lambda: server.device.WatchDeviceStatus(request, timeout=CALL_S))
    assert told.fields == ["interval"]


# Health: DEV-08.


def test_a_quick_check_of_a_healthy_device(server: RunningServer) -> None:
    request_id = str(uuid.uuid4())
    report = check(server, "sim:0", request_id=request_id)
    assert report.device_id == "sim-0"
    assert report.verdict == device_health_pb2.DEVICE_HEALTH_VERDICT_HEALTHY
    names = [one.name for one in report.checks]
    assert names == ["telemetry", "queue", "allocate", "copy", "compute", "verify"]
    assert all(one.message and one.HasField("duration") for one in report.checks)
    assert not report.recommendations
    assert report.HasField("check_time")
    # Once, however often it is asked.
    assert check(server, "sim:0", request_id=request_id) == report
    assert refused(lambda: check(server, "sim-1", request_id=request_id)).reason == "REQUEST_ID_REUSED"
    assert check(server, "sim-0").check_time != report.check_time


def test_a_check_goes_between_jobs_and_disturbs_none(server: RunningServer) -> None:
    with at_work(server, "sim-0") as (job_id,):
        report = check(server, "sim-0")
        assert report.verdict == device_health_pb2.DEVICE_HEALTH_VERDICT_HEALTHY
        assert asking.job_of(server, job_id).state == job_event_pb2.JOB_STATE_RUNNING


def test_a_check_of_a_device_without_a_worker_says_what_it_did_not_try(server: RunningServer) -> None:
    verdicts = {one.name: one.verdict for one in check(server, "cpu").checks}
    assert verdicts["telemetry"] == device_health_pb2.DEVICE_HEALTH_VERDICT_HEALTHY
    assert verdicts["queue"] == device_health_pb2.DEVICE_HEALTH_VERDICT_SKIPPED
    assert state(server, "cpu") == "DISABLED"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"timeout": {"nanos": 999_999_999}}, "timeout"),
        ({"timeout": {"seconds": 601}}, "timeout"),
        ({"timeout": {"seconds": -5}}, "timeout"),
        ({"depth": 9}, "depth"),
        ({"request_id": "x" * 65}, "request_id"),
    ],
)
def test_a_check_that_cannot_be_meant_is_refused(server: RunningServer, fields: dict[str, Any], field: str) -> None:
    assert refused(lambda: check(server, "sim-0", **fields)).fields == [field]


# Advice and benchmark: DEV-11, DEV-17.


@pytest.mark.parametrize("goal", [0, 1, 2, 3, 4, 5])
def test_advice_can_be_applied_as_it_is_and_changes_nothing_by_itself(server: RunningServer, goal: int) -> None:
    before = device(server, "sim-0")
    told = advice(server, "sim-0", goal=goal, task="text_to_image")
    assert device(server, "sim-0") == before
    assert told.rationale
    if told.changed_fields:
        after = update(server, "sim-0", list(told.changed_fields), settings=told.settings, etag=before.etag).device
        assert after.settings == told.settings
        assert not advice(server, "sim-0", goal=goal).changed_fields


def test_advice_for_the_unknown_is_refused(server: RunningServer) -> None:
    assert refused(lambda: advice(server, "sim-0", task="levitation")).fields == ["task"]
    assert refused(lambda: advice(server, "sim-0", goal=77)).fields == ["goal"]
    assert refused(lambda: advice(server, "sim-0", model_id="no-model")).reason == "MODEL_NOT_FOUND"


def test_a_benchmark_measures_and_its_figures_are_used(server: RunningServer) -> None:
    memory = device_work_pb2.DEVICE_BENCHMARK_SUITE_MEMORY
    before = device(server, "sim-1")
    seen = list(benchmark(server, device_id="sim:1", suites=[memory, memory], max_duration={"seconds": 60}))
    assert kinds(seen)[0] == "queued"
    assert kind(seen[-1]) == "succeeded"
    report = seen[-1].device_benchmark_report
    assert report.device_id == "sim-1"
    assert report.results
    for result in report.results:
        assert result.suite == memory
        assert 1 <= len(result.samples) <= result.sample_count
        assert min(result.samples) <= result.median.value <= max(result.samples)
        assert result.median.name
        assert result.workload
    assert report.environment.device_name == "Simulated device"
    assert report.environment.libraries
    assert report.environment.platform
    assert report.environment.server_version
    assert not any(one.HasField("device_benchmark_report") for one in seen[:-1])
    after = device(server, "sim-1")
    assert after.capabilities.memory_bandwidth_bytes_per_second > 0
    assert after.etag != before.etag


def test_leaving_a_benchmark_cancels_it(server: RunningServer) -> None:
    stability = device_work_pb2.DEVICE_BENCHMARK_SUITE_STABILITY
    call = benchmark(server, device_id="sim-1", suites=[stability], max_duration={"seconds": 60})
    job_id = asking.until(call, lambda update: kind(update) == "stage_started").event.job_id
    call.cancel()
    assert kind(asking.watch(server, job_id)[-1]) == "cancelled"
    with all_devices(server) as watching:
        asking.until(watching, lambda answer: job_id not in running_jobs(answer))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"suites": [device_work_pb2.DEVICE_BENCHMARK_SUITE_UNSPECIFIED]}, "device_benchmark.suites"),
        ({"suites": [99]}, "device_benchmark.suites"),
        ({"max_duration": {"nanos": 1}}, "device_benchmark.max_duration"),
        ({"max_duration": {"seconds": 3601}}, "device_benchmark.max_duration"),
    ],
)
def test_a_benchmark_that_cannot_be_meant_is_refused(server: RunningServer, fields: dict[str, Any], field: str) -> None:
    assert refused(lambda: benchmark(server, device_id="sim-0", **fields)).fields == [field]
    work = device_work_pb2.DeviceBenchmark(device_id="sim-0", **fields)
    assert refused(lambda: submit_spec(server, device_benchmark=work)).fields == [f"spec.{field}"]


def test_a_benchmark_names_its_device_itself(server: RunningServer) -> None:
    told = refused(lambda: benchmark(server, on("sim-1"), device_id="sim-0"))
    assert told.fields == ["options.devices"]


def submit_spec(server: RunningServer, request_id: str = "", **work: Any) -> job_pb2.Job:
    request = processing_service_pb2.SubmitJobRequest(spec=job_pb2.JobSpec(**work), request_id=request_id)
    return server.processing.SubmitJob(request, timeout=CALL_S).job


def test_work_on_devices_can_be_submitted_as_any_job(server: RunningServer) -> None:
    suites = [device_work_pb2.DEVICE_BENCHMARK_SUITE_INFERENCE]
    work = device_work_pb2.DeviceBenchmark(device_id="sim:1", suites=suites, max_duration=Duration(seconds=60))
    request_id = str(uuid.uuid4())
    job = submit_spec(server, request_id, device_benchmark=work)
    assert submit_spec(server, request_id, device_benchmark=work).id == job.id
    seen = asking.watch(server, job.id)
    assert seen[-1].device_benchmark_report.results
    assert asking.job_of(server, job.id).spec.device_benchmark.device_id == "sim-1"
    content = device_work_pb2.DeviceReset(device_id="sim-1", level=device_work_pb2.DEVICE_RESET_LEVEL_CONTENT)
    seen = asking.watch(server, submit_spec(server, device_reset=content).id)
    assert seen[-1].device_reset_report.device.id == "sim-1"


# Reset: DEV-10. What it does to jobs and processes: tests/faults.


def test_a_device_that_takes_no_work_can_be_reset_and_checked(server: RunningServer) -> None:
    content = device_work_pb2.DEVICE_RESET_LEVEL_CONTENT
    for settings in ({"draining": True}, {"enabled": False}):
        choose(server, "sim-0", **settings)
        before = state(server, "sim-0")
        assert kind(list(reset(server, device_id="sim-0", level=content))[-1]) == "succeeded"
        assert "verify" in [one.name for one in check(server, "sim-0").checks]
        assert state(server, "sim-0") == before


def test_a_device_that_has_no_worker_has_nothing_to_reset(server: RunningServer) -> None:
    ended = list(reset(server, device_id="cpu"))[-1]
    assert kind(ended) == "succeeded"
    assert ended.device_reset_report.freed_bytes == 0
    assert ended.device_reset_report.device.state == device_pb2.DEVICE_STATE_DISABLED


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"level": 9}, "device_reset.level"),
        ({"drain_timeout": {"seconds": 3601}}, "device_reset.drain_timeout"),
        ({"drain_timeout": {"seconds": -1}}, "device_reset.drain_timeout"),
    ],
)
def test_a_reset_that_cannot_be_meant_is_refused(server: RunningServer, fields: dict[str, Any], field: str) -> None:
    assert refused(lambda: reset(server, device_id="sim-0", **fields)).fields == [field]


def test_a_second_reset_names_the_first_which_can_be_left(machine: Machine, server: RunningServer) -> None:
    with at_work(server, "sim-0") as (running,):
        request_id = str(uuid.uuid4())
        first = reset(server, request_id, device_id="sim-0", drain_timeout=Duration(seconds=600))
        job_id = asking.until(first, lambda update: kind(update) == "stage_started").event.job_id
        assert state(server, "sim-0") == "RECOVERING"
        again = reset(server, request_id, device_id="sim-0", drain_timeout=Duration(seconds=600))
        assert next(again).event.job_id == job_id
        told = refused(lambda: reset(server, device_id="sim:0", force=True))
        assert told.code is grpc.StatusCode.FAILED_PRECONDITION
        assert told.reason == "ILLEGAL_STATE"
        assert told.facts["job_id"] == job_id
        assert refused(lambda: check(server, "sim-0")).reason == "DEVICE_RECOVERING"
        again.cancel()
        first.cancel()
        assert kind(asking.watch(server, job_id)[-1]) == "cancelled"
        # Nothing was thrown away.
        assert state(server, "sim-0") == "BUSY"
        assert asking.job_of(server, running).state == job_event_pb2.JOB_STATE_RUNNING


# The log of changes: DEV-12, DEV-16.


def test_events_are_filtered_by_thing_and_kind(server: RunningServer) -> None:
    sequence = newest(server)
    for name in ("sim-0", "sim-1"):
        choose(server, name, goal=device_pb2.DEVICE_GOAL_LATENCY)
        choose(server, name, draining=True)
    call = events_after(server, sequence, kinds=["device.settings_changed"], resource_ids=["sim-1"])
    next(call)
    seen = [next(call).event for _ in range(2)]
    call.cancel()
    assert [(one.resource_id, one.kind) for one in seen] == [("sim-1", "device.settings_changed")] * 2
    assert seen[1].device.settings.draining


def test_two_clients_see_the_same_order_and_resume_without_a_gap(server: RunningServer) -> None:
    sequence = newest(server)
    calls = [events_after(server, sequence, kinds=["device"]) for _ in range(2)]
    goals = [device_pb2.DEVICE_GOAL_LATENCY, device_pb2.DEVICE_GOAL_POWER]
    changes = [
        lambda name=name, goal=goal: choose(server, name, goal=goal) for goal in goals for name in ("sim-0", "sim-1")
    ]
    asking.together(*changes)
    logs: list[list[bytes]] = []
    numbers: list[int] = []
    for call in calls:
        next(call)
        seen = [next(call).event for _ in range(4)]
        call.cancel()
        numbers = [one.sequence for one in seen]
        logs.append([one.SerializeToString(deterministic=True) for one in seen])
    assert logs[0] == logs[1]
    assert numbers == sorted(set(numbers))
    again = events_after(server, numbers[1], kinds=["device"])
    assert not next(again).events_missed
    assert [next(again).event.sequence for _ in range(2)] == numbers[2:]
    again.cancel()


def test_of_random_changes_by_two_clients_the_log_tells_all_and_in_order(server: RunningServer) -> None:
    sequence = newest(server)
    with grpc.insecure_channel(server.address) as channel:
        other = DeviceServiceStub(channel)

        def change(stub: DeviceServiceStub, seed: int) -> int:
            """So many changes were made."""
            dice, made = random.Random(seed), 0
            for _ in range(15):
                name = dice.choice(["sim-0", "sim-1"])
                etag = stub.GetDevice(pb.GetDeviceRequest(device_id=name), timeout=CALL_S).device.etag
                goals = [device_pb2.DEVICE_GOAL_BALANCED, device_pb2.DEVICE_GOAL_MEMORY, device_pb2.DEVICE_GOAL_POWER]
                settings = device_pb2.DeviceSettings(
                    goal=dice.choice(goals), power_limit_watts=dice.choice([100, 150, 200])
                )
                mask = FieldMask(paths=["goal", "power_limit_watts"])
                request = pb.UpdateDeviceRequest(device_id=name, settings=settings, etag=etag, update_mask=mask)
                with suppress(grpc.RpcError):  # The other one may be faster.
                    made += stub.UpdateDevice(request, timeout=CALL_S).device.etag != etag
            return made

        made = sum(asking.together(lambda: change(server.device, 1), lambda: change(other, 2)))
    call = events_after(server, sequence, kinds=["device.settings_changed"])
    next(call)
    seen = [next(call).event for _ in range(made)]
    call.cancel()
    assert made >= 10
    for name in ("sim-0", "sim-1"):
        story = [event.device for event in seen if event.resource_id == name]
        versions = [int(one.etag, 16) for one in story]
        assert versions == list(range(versions[0], versions[0] + len(versions)))
        assert story[-1] == device(server, name)


@pytest.mark.parametrize("beyond", [1_000, -1, 2**62])
def test_a_place_that_the_log_has_not_reached_is_refused(server: RunningServer, beyond: int) -> None:
    sequence = newest(server) + beyond if beyond > 0 else beyond
    told = refused(lambda: events_after(server, sequence))
    assert told.reason == "INVALID_FIELD"
    assert told.fields == ["after_sequence"]


# Last, for they start more worker processes.


def test_the_cpu_gets_a_worker_when_it_is_enabled(machine: Machine, server: RunningServer) -> None:
    _, _, events = machine
    answer = choose(server, "cpu", enabled=True)
    assert answer.device.state in (device_pb2.DEVICE_STATE_STARTING, device_pb2.DEVICE_STATE_RECOVERING)
    waiting = asking.submit(server, options=on("cpu:0"))
    events.until_state("cpu", "AVAILABLE")
    ready = device(server, "cpu")
    assert ready.HasField("capabilities")
    assert ready.etag != answer.device.etag
    assert asking.watch(server, waiting)[-1].event.succeeded.receipt.device_id == "cpu"
    choose(server, "cpu", enabled=False)
    assert state(server, "cpu") == "DISABLED"


def test_a_device_that_appears_is_starting_until_it_is_probed(machine: Machine, server: RunningServer) -> None:
    _, script, events = machine
    assert refused(lambda: device(server, "sim-2")).reason == "DEVICE_NOT_FOUND"
    with all_devices(server) as watching:
        script.write(sim(0, HOT), sim(1), sim(2))
        appeared = events.until(lambda event: event.kind == "device.appeared" and event.resource_id == "sim-2")
        assert appeared.device.state == device_pb2.DEVICE_STATE_STARTING
        assert not appeared.device.HasField("capabilities")
        assert "sim-2" in listed(server)
        probed = events.until_state("sim-2", "AVAILABLE")
        assert probed.device.HasField("capabilities")
        # It joins those who watch all.
        asking.until(watching, lambda answer: "sim-2" in [one.device_id for one in answer.statuses])
    assert listed(server) == ["sim-0", "sim-1", "sim-2", "cpu"]
    script.write(sim(0, HOT), sim(1))
    events.until(lambda event: event.kind == "device.lost" and event.resource_id == "sim-2")
    assert listed(server) == list(ALL)
