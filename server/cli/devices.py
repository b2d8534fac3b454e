"""`deviceops devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.cli.connection import AddressOption, JsonOption, connect
from server.cli.printing import bytes_text, print_json, print_table, word

if TYPE_CHECKING:
    from deviceops.device.v1.device_pb2 import Device


def devices(address: AddressOption = None, json: JsonOption = False) -> None:
    """List the devices that the server owns."""
    from deviceops.device.v1 import device_service_pb2

    with connect(address) as connection:
        answer = connection.device.ListDevices(device_service_pb2.ListDevicesRequest())
    if json:
        return print_json(answer)
    heads = ("device", "name", "state", "backend", "memory", "aliases")
    return print_table(
        heads, map(_row, answer.devices), "No devices yet; `deviceops status` tells what the server waits for."
    )


def _row(device: Device) -> tuple[str, ...]:
    from deviceops.device.v1 import device_pb2

    abilities = device.capabilities
    memory = abilities.total_memory_bytes if abilities.HasField("total_memory_bytes") else None
    state = word(device_pb2.DeviceState.Name(device.state), "DEVICE_STATE_")
    return (
        device.id,
        device.display_name,
        f"{state}: {device.state_reason}" if device.state_reason else state,
        word(device_pb2.DeviceBackend.Name(device.backend), "DEVICE_BACKEND_"),
        bytes_text(memory),
        ", ".join(device.aliases),
    )
