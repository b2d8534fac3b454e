"""The temperature ceiling: what cannot be measured is not taken for cool."""

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from domains.device.device import Device, DeviceState
from domains.device.devices import Devices
from domains.device.history import STEP_S
from domains.device.record import DeviceReach
from domains.device.sample import DeviceSample
from domains.device.settings import DeviceSettings
from domains.device.telemetry import DeviceGone
from domains.errors import ErrorReason, InternalError, Unavailable
from domains.processing.devices.statuses import DeviceStatuses
from tests.domains.processing.scripted_worker import Floor, a_device


class Thermometer:
    def __init__(self) -> None:
        self.celsius: float | None = None

    async def sample(self, device: Device) -> DeviceSample:
        return DeviceSample(time_s=0.0, temperature_celsius=self.celsius)


@pytest.fixture
async def floor(tmp_path: Path) -> Floor:
    return Floor(tmp_path)


async def test_a_hot_device_whose_temperature_cannot_be_had_stays_degraded(floor: Floor) -> None:
    meter = Thermometer()
    statuses = DeviceStatuses(
        floor.devices, cast(Any, meter), floor.board.backlog.workload, lambda device_id: (None, 0)
    )
    floor.arrive()
    floor.devices.set_settings("sim-0", DeviceSettings(max_temperature_celsius=80.0))
    for celsius, state in (
        (None, DeviceState.AVAILABLE),
        (81.0, DeviceState.DEGRADED),
        (None, DeviceState.DEGRADED),
        (76.0, DeviceState.DEGRADED),
        (74.0, DeviceState.AVAILABLE),
    ):
        meter.celsius = celsius
        await statuses.sample(floor.devices.get("sim-0"))
        assert floor.devices.get("sim-0").state is state


async def test_devices_are_not_listed_before_the_first_look_at_them(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    devices = Devices(floor.log, ["sim-0"])
    statuses = DeviceStatuses(devices, cast(Any, Thermometer()), floor.board.backlog.workload, lambda name: (None, 0))
    with pytest.raises(Unavailable) as caught:
        statuses.ids()
    assert caught.value.reason is ErrorReason.STARTING
    devices.described("sim-0", a_device(), DeviceReach(), ready=True)
    assert statuses.ids() == ["sim-0"]
    assert statuses.resolve("sim-0") == "sim-0"


class Meter:
    """Measures what the test says; counts its samples."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: Exception | None = None

    async def sample(self, device: Device) -> DeviceSample:
        self.asked.append(device.id)
        if self.fails is not None:
            raise self.fails
        return DeviceSample(time_s=time.time(), temperature_celsius=50.0)


def measured(floor: Floor, meter: Meter) -> DeviceStatuses:
    return DeviceStatuses(floor.devices, cast(Any, meter), floor.board.backlog.workload, lambda device_id: (7.0, 2))


async def test_a_status_has_the_sample_the_errors_and_the_worker(floor: Floor) -> None:
    meter = Meter()
    statuses = measured(floor, meter)
    floor.arrive()
    floor.devices.failed("sim-0", InternalError("a bad kernel", ErrorReason.DRIVER_ERROR))
    found = await statuses.status("sim-0")
    assert (found.device_id, found.sample.temperature_celsius) == ("sim-0", 50.0)
    assert (found.worker_uptime_s, found.worker_restart_count) == (7.0, 2)
    assert (found.error_count, found.consecutive_error_count) == (1, 1)
    assert found.last_failure is not None
    assert found.last_failure.message == "a bad kernel"
    assert (found.state, found.workload) == (floor.devices.get("sim-0").state, floor.board.backlog.workload("sim-0"))
    history = statuses.history("sim-0", None, time.time() + 60, None)
    assert history.begin_s == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("gone", ["lost", "gone during the call"])
async def test_a_device_that_is_not_there_has_no_figures(floor: Floor, gone: str) -> None:
    meter = Meter()
    statuses = measured(floor, meter)
    floor.arrive()
    if gone == "lost":
        floor.devices.lost("sim-0", "unplugged")
    else:
        meter.fails = DeviceGone("unplugged")
    sample = await statuses.sample(floor.devices.get("sim-0"))
    assert sample.temperature_celsius is None
    assert sample.time_s == pytest.approx(time.time(), abs=60)
    assert meter.asked == ([] if gone == "lost" else ["sim-0"])


async def test_every_device_is_sampled_once_a_step_and_a_bug_ends_no_others(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter, pauses_s, forgotten = Meter(), list[float](), list[str]()
    statuses = measured(floor, meter)
    for name in ("sim-0", "sim-1"):
        floor.arrive(name)

    def forget(device_id: str) -> None:
        forgotten.append(device_id)
        if device_id == "sim-0":
            raise RuntimeError("a bug")

    async def sleep(seconds: float) -> None:
        pauses_s.append(seconds)
        if len(pauses_s) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr(floor.devices, "forget_old_errors", forget)
    monkeypatch.setattr("domains.processing.devices.statuses.asyncio.sleep", sleep)
    monkeypatch.setattr("domains.processing.devices.statuses.time.time", lambda: 1000.25 * STEP_S)
    with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await statuses.keep_sampling()
    assert sorted(forgotten) == ["sim-0", "sim-0", "sim-1", "sim-1"]
    assert [(line["event"], line["device"]) for line in lines] == [("a bug ended a look at a device", "sim-0")] * 2
    assert pauses_s == [pytest.approx(STEP_S / 4)] * 2, "until the middle of a step"
    assert meter.asked == ["sim-1"], "one sample in a step is enough"
