"""The temperature ceiling: what cannot be measured is not taken for cool."""

from pathlib import Path
from typing import Any, cast

import pytest

from domains.device.device import Device, DeviceState
from domains.device.sample import DeviceSample
from domains.device.settings import DeviceSettings
from domains.processing.devices.statuses import DeviceStatuses
from tests.domains.processing.scripted_worker import Floor


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
