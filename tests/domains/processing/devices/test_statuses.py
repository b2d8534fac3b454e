"""The temperature ceiling: what cannot be measured is not taken for cool."""

from pathlib import Path
from typing import Any, cast

import pytest

from domains.device.device import Device, DeviceState
from domains.device.devices import Devices
from domains.device.record import DeviceReach
from domains.device.sample import DeviceSample
from domains.device.settings import DeviceSettings
from domains.errors import ErrorReason, Unavailable
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
