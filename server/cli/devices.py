"""`deviceops devices`: what there is, and how it is now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.connection import AddressOption, Connection, JsonOption, connect
from server.cli.printing import figure, measured, measured_bytes, percent, print_json, print_table, table, word
from server.cli.screen import IntervalOption, RoundsOption, WatchOption, show_rounds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from deviceops.device.v1.device_pb2 import Device
    from deviceops.device.v1.device_service_pb2 import ListDevicesResponse, WatchDeviceStatusResponse
    from deviceops.device.v1.device_status_pb2 import DeviceStatus

_HEADS = ("device", "name", "state", "busy", "memory", "of", "temperature", "power", "jobs", "aliases")


def devices(
    watch: WatchOption = False,
    interval: IntervalOption = 1.0,
    rounds: RoundsOption = 0,
    lost: Annotated[bool, typer.Option("--all", help="Also those that are lost.")] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """List the devices that the server owns, and how they are. What cannot be measured is `–`.

    With --json: what they are; with --watch --json, one line of figures each time.
    """
    with connect(address) as connection:
        if watch:
            return _watch(connection, interval, rounds, lost, json)
        answer = _list(connection, lost)
        if json:
            return print_json(answer)
        statuses = {} if not answer.devices else next(iter(_samples(connection, [], 1.0))).statuses
        by_id = {status.device_id: status for status in statuses}
    empty = "No devices; `deviceops status` tells what the server waits for."
    return print_table(_HEADS, _rows(answer.devices, by_id), empty)


def _list(connection: Connection, lost: bool) -> ListDevicesResponse:
    from deviceops.device.v1 import device_pb2, device_service_pb2

    # An empty list of states means all but LOST.
    states = [state for state in device_pb2.DeviceState.values() if state] if lost else []
    request = device_service_pb2.ListDevicesRequest(filter=device_pb2.DeviceFilter(states=states))
    return connection.device.ListDevices(request)


def _samples(connection: Connection, ids: Iterable[str], interval_s: float) -> Iterable[WatchDeviceStatusResponse]:
    from google.protobuf.duration_pb2 import Duration

    from deviceops.device.v1 import device_service_pb2

    every = Duration()
    every.FromNanoseconds(round(interval_s * 1e9))
    return connection.device.WatchDeviceStatus(
        device_service_pb2.WatchDeviceStatusRequest(device_ids=ids, interval=every)
    )


def _watch(connection: Connection, interval_s: float, rounds: int, lost: bool, json: bool) -> None:
    def draw(message: WatchDeviceStatusResponse) -> RenderableType:
        # Listing costs the server nothing, and devices come and go while we watch.
        return table(_HEADS, _rows(_list(connection, lost).devices, {one.device_id: one for one in message.statuses}))

    show_rounds(_samples(connection, [], interval_s), draw, rounds, json=json)


def _rows(known: Iterable[Device], statuses: Mapping[str, DeviceStatus]) -> Iterable[tuple[str, ...]]:
    from deviceops.device.v1 import device_status_pb2

    return [_row(device, statuses.get(device.id, device_status_pb2.DeviceStatus())) for device in known]


def _row(device: Device, status: DeviceStatus) -> tuple[str, ...]:
    running, queued = status.workload.running_count, status.workload.queued_count
    return (
        device.id,
        device.display_name,
        state_text(device),
        percent(measured(status, "utilization_ratio")),
        measured_bytes(status, "used_memory_bytes"),
        # A device that is switched off is not probed, but may still be measured.
        measured_bytes(status if status.HasField("total_memory_bytes") else device.capabilities, "total_memory_bytes"),
        figure(measured(status, "temperature_celsius"), "°C"),
        figure(measured(status, "power_watts"), "W"),
        f"{running} + {queued} waiting" if queued else str(running),
        ", ".join(device.aliases),
    )


def state_text(device: Device) -> str:
    """`quarantined: 3 errors in a row`."""
    from deviceops.device.v1 import device_pb2

    state = word(device_pb2.DeviceState.Name(device.state), "DEVICE_STATE_")
    return f"{state}: {device.state_reason}" if device.state_reason else state
