"""`deviceops devices`: the devices and their present state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, Connection, JsonOption, connect
from server.cli.console.methods import in_commands
from server.cli.console.printing import figure, measured, measured_bytes, minutes_ago, percent, print_json, word
from server.cli.console.screen import IntervalOption, RoundsOption, WatchOption, rounds_of, show_rounds
from server.cli.console.tables import print_reasons, print_table, table
from server.cli.devices.history import tell_history

if TYPE_CHECKING:
    from rich.console import RenderableType

    from deviceops.device.v1.device_pb2 import Device
    from deviceops.device.v1.device_service_pb2 import ListDevicesResponse, WatchDeviceStatusResponse
    from deviceops.device.v1.device_status_pb2 import DeviceStatus

_HEADS = ("device", "name", "state", "busy", "memory", "of", "temperature", "power", "jobs", "aliases")


def devices(
    device: Annotated[str | None, typer.Argument(help="With --history: this one alone.")] = None,
    history: Annotated[bool, typer.Option("--history", help="How they were over time.")] = False,
    minutes: Annotated[float, typer.Option(min=0.1, max=24 * 60, help="With --history: how far to look back.")] = 60,
    watch: WatchOption = False,
    interval: IntervalOption = 1.0,
    rounds: RoundsOption = 0,
    lost: Annotated[bool, typer.Option("--all", help="Also those that are lost.")] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """List the devices that the server owns, and how they are. What cannot be measured is `–`.

    With --json: what they are; with --watch --json, one line of figures each time; with --history --json, one line a
    device.
    """
    if device and not history:
        raise typer.BadParameter("a device can only be named with --history")
    with connect(address) as connection:
        if history:
            return _histories(connection, device, minutes, lost, json)
        if watch:
            return _watch(connection, interval, rounds, lost, json)
        answer = _list(connection, lost)
        if json:
            return print_json(answer)
        statuses = {} if not answer.devices else next(iter(rounds_of(_samples(connection, [], 1.0)))).statuses
        by_id = {status.device_id: status for status in statuses}
    empty = "No devices; `deviceops status` tells what the server waits for."
    print_table(_HEADS, _rows(answer.devices, by_id), empty)
    return print_reasons((one.id, in_commands(one.state_reason)) for one in answer.devices)


def _histories(connection: Connection, device: str | None, minutes: float, lost: bool, json: bool) -> None:
    from deviceops.device.v1 import device_service_pb2

    names = [ids.device(connection, device)] if device else [one.id for one in _list(connection, lost).devices]
    for name in names:
        answer = connection.device.QueryDeviceHistory(
            device_service_pb2.QueryDeviceHistoryRequest(device_id=name, start_time=minutes_ago(minutes))
        )
        print_json(answer, one_line=True) if json else tell_history(answer.history)


def _list(connection: Connection, lost: bool) -> ListDevicesResponse:
    from deviceops.device.v1 import device_pb2, device_service_pb2

    # An empty list of states means all except LOST.
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
        # Listed each time, because devices can appear and vanish during the watch; listing costs the server nothing.
        return table(_HEADS, _rows(_list(connection, lost).devices, {one.device_id: one for one in message.statuses}))

    show_rounds(_samples(connection, [], interval_s), draw, rounds, json=json)


def _rows(known: Iterable[Device], statuses: Mapping[str, DeviceStatus]) -> Iterable[tuple[str, ...]]:
    from deviceops.device.v1 import device_status_pb2

    return [_row(device, statuses.get(device.id, device_status_pb2.DeviceStatus())) for device in known]


def _row(device: Device, status: DeviceStatus) -> tuple[str, ...]:
    from deviceops.device.v1 import device_pb2

    running, queued = status.workload.running_count, status.workload.queued_count
    return (
        device.id,
        device.display_name,
        word(device_pb2.DeviceState.Name(device.state), "DEVICE_STATE_"),
        percent(measured(status, "utilization_ratio")),
        measured_bytes(status, "used_memory_bytes"),
        # A disabled device is not probed, but its memory may still be measured.
        measured_bytes(status if status.HasField("total_memory_bytes") else device.capabilities, "total_memory_bytes"),
        figure(measured(status, "temperature_celsius"), "°C"),
        figure(measured(status, "power_watts"), "W"),
        f"{running} + {queued} waiting" if queued else str(running),
        ", ".join(device.aliases),
    )


def state_text(device: Device) -> str:
    """A device's state and its reason: `quarantined: 3 errors in a row`."""
    from deviceops.device.v1 import device_pb2

    state = word(device_pb2.DeviceState.Name(device.state), "DEVICE_STATE_")
    return f"{state}: {in_commands(device.state_reason)}" if device.state_reason else state
