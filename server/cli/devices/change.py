"""Changes settings of a device from the command line, and shows the effect on its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from server.cli.calls import ids
from server.cli.calls.connection import connect
from server.cli.console.failure import USAGE, CliError
from server.cli.console.printing import emit, figure, measured, notice, print_json
from server.cli.devices.devices import state_text

if TYPE_CHECKING:
    from deviceops.device.v1.device_pb2 import Device
    from deviceops.device.v1.device_service_pb2 import UpdateDeviceResponse

Settings = Mapping[str, bool | int | float | None]
"""Values of DeviceSettings by field; None: the default."""


def change(address: str | None, device_id: str, settings: Settings, cause: str, *, json: bool) -> None:
    """Change these fields and print the device's new state and its jobs."""
    from google.protobuf.field_mask_pb2 import FieldMask

    from deviceops.device.v1 import device_service_pb2

    request = device_service_pb2.UpdateDeviceRequest(update_mask=FieldMask(paths=list(settings)), cause=cause)
    for field, value in settings.items():
        if value is not None:
            setattr(request.settings, field, value)
    with connect(address) as connection:
        request.device_id = ids.device(connection, device_id)
        answer = connection.device.UpdateDevice(request)
    return print_json(answer) if json else _tell(answer)


def limits(*, power: str | None, jobs: str | None, temperature: str | None) -> Settings:
    """The given limits. Raises `CliError` (usage) for none, and for text that is neither a number nor `default`."""
    given = {
        "power_limit_watts": _number("--power", power, float),
        "max_concurrent_jobs": _number("--jobs", jobs, int),
        "max_temperature_celsius": _number("--temperature", temperature, float),
    }
    named = {"power_limit_watts": power, "max_concurrent_jobs": jobs, "max_temperature_celsius": temperature}
    chosen = {field: value for field, value in given.items() if named[field] is not None}
    if not chosen:
        raise CliError("say what to limit: --power, --jobs or --temperature", USAGE)
    return chosen


def _number(flag: str, text: str | None, kind: type[int] | type[float]) -> int | float | None:
    if text is None or text == "default":
        return None
    try:
        return kind(text)
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        raise CliError(f"{flag} {text}: write {what}, or `default`", USAGE) from error


def _tell(answer: UpdateDeviceResponse) -> None:
    emit(f"{answer.device.id} is {state_text(answer.device)}; {_ceilings(answer.device)}")
    if answer.finishing_job_ids:
        notice(f"Runs to its end there: {', '.join(answer.finishing_job_ids)}")
    if answer.stranded_job_ids:
        notice(f"Waits, and has no device to run on now: {', '.join(answer.stranded_job_ids)}")


def _ceilings(device: Device) -> str:
    settings = device.settings
    power, temperature = (
        "default" if (value := measured(settings, field)) is None else figure(value, unit)
        for field, unit in (("power_limit_watts", "W"), ("max_temperature_celsius", "°C"))
    )
    jobs = measured(settings, "max_concurrent_jobs") or device.capabilities.max_concurrent_jobs
    return f"limits: power {power}, temperature {temperature}, {jobs} at once"
