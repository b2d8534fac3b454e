"""Reads of devices are answered from what is known."""

from pathlib import Path
from typing import Any, cast

from deviceops.device.v1 import device_service_pb2
from server.device.servicer import DeviceServicer
from tests.domains.processing.scripted_worker import Floor


class Absent:
    """Hardware that no read may reach: whatever is asked of it raises."""

    def __getattr__(self, name: str) -> Any:
        def ask(*_: object) -> None:
            raise AssertionError(f"a read asked for {name}")

        return ask


async def test_a_read_of_a_device_asks_neither_driver_nor_worker(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    worker = floor.arrive()
    absent = cast(Any, Absent())
    servicer = DeviceServicer(floor.devices, absent, absent, absent, absent, absent, absent)
    listed = await servicer.ListDevices(device_service_pb2.ListDevicesRequest(), absent)
    request = device_service_pb2.GetDeviceRequest(device_id="sim-0")
    one, again = await servicer.GetDevice(request, absent), await servicer.GetDevice(request, absent)
    assert [device.id for device in listed.devices] == ["sim-0"]
    assert listed.devices[0] == one.device == again.device
    assert worker.orders == []
