"""Power limits: set again on a device that comes back, put back when the server stops."""

from pathlib import Path
from typing import Any, cast

import pytest

from domains.device.device import Device
from domains.device.record import DeviceReach
from domains.device.settings import DeviceSettings
from domains.device.telemetry import ALWAYS, PowerRange
from domains.errors import ErrorReason, InternalError
from domains.processing.device_control import DeviceControl
from tests.domains.processing.scripted_worker import Floor, a_device


class Driver:
    def __init__(self) -> None:
        self.watts: float | None = None
        self.refuses = False
        self.restored: list[str] = []

    async def power_range(self, device: Device) -> PowerRange:
        return PowerRange(least_watts=100.0, most_watts=400.0, default_watts=400.0)

    async def set_power_limit(self, device: Device, watts: float | None) -> None:
        if self.refuses:
            raise InternalError("no", ErrorReason.DRIVER_ERROR)
        self.watts = watts

    async def restore(self, device: Device) -> None:
        self.restored.append(device.id)


async def nothing(device_id: str) -> None:
    pass


@pytest.fixture
async def floor(tmp_path: Path) -> Floor:
    return Floor(tmp_path)


async def test_a_power_limit_outlives_a_loss_and_not_the_server(floor: Floor) -> None:
    driver = Driver()
    control = DeviceControl(floor.devices, floor.board, cast(Any, driver), nothing)
    for name in ("sim-0", "sim-1"):
        reach = DeviceReach(controls=(*ALWAYS, "power_limit_watts"))
        floor.devices.described(name, a_device(name), reach, ready=True)
    wanted = DeviceSettings(power_limit_watts=200.0)
    await control.update("sim-0", wanted, ["power_limit_watts"], etag="", validate_only=False, cause="")
    assert driver.watts == 200.0
    driver.watts = None
    for name in ("sim-0", "sim-1"):
        await control.apply_again(name)
    assert driver.watts == 200.0
    await control.restore_limits()
    assert driver.restored == ["sim-0"]
    # What this server has chosen is not what another has left behind.
    for name in ("sim-0", "sim-1"):
        await control.restore_left_over(name)
    assert driver.restored == ["sim-0", "sim-1"]
    driver.refuses = True
    await control.apply_again("sim-0")
    # What does not hold is not told.
    assert floor.devices.get("sim-0").settings.power_limit_watts is None
