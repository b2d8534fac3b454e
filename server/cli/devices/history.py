"""`deviceops devices --history`: figures of devices over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from server.cli.console.printing import (
    bytes_text,
    duration_s,
    emit,
    figure,
    local_time,
    measured,
    notice,
    percent,
    word,
)
from server.cli.console.sparkline import Curve, print_curves

if TYPE_CHECKING:
    from deviceops.device.v1.device_history_pb2 import DeviceHistory

Text = Callable[[float | None], str]


def _unit(unit: str) -> Text:
    return lambda value: figure(value, unit)


def _memory(value: float | None) -> str:
    return bytes_text(None if value is None else int(value))


_CURVES: Sequence[tuple[str, str, Text]] = (
    ("busy", "utilization_ratio", percent),
    ("memory busy", "memory_activity_ratio", percent),
    ("memory", "used_memory_bytes", _memory),
    ("temperature", "temperature_celsius", _unit("°C")),
    ("memory temperature", "memory_temperature_celsius", _unit("°C")),
    ("power", "power_watts", _unit("W")),
    ("power limit", "power_limit_watts", _unit("W")),
    ("clock", "clock_mhz", _unit("MHz")),
    ("memory clock", "memory_clock_mhz", _unit("MHz")),
    ("fan", "fan_speed_fraction", percent),
)


def tell_history(told: DeviceHistory) -> None:
    """Print a curve for each measured figure, and why the device ran below its full clock."""
    if not told.samples:
        return notice(f"{told.device_id}: nothing was measured in this time.")
    first, last = told.samples[0].sample_time, told.samples[-1].sample_time
    step = duration_s(told.step)
    emit(f"{told.device_id}, {local_time(first)} to {local_time(last)}, a sample each {step:g} s\n")
    rows = [row for name, field, text in _CURVES if (row := _row(told, name, field, text))]
    print_curves(rows)
    for line in _throttled(told, step):
        emit(line)
    return emit()


def _row(told: DeviceHistory, name: str, field: str, text: Text) -> Curve | None:
    values = [measured(sample, field) for sample in told.samples]
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Curve(name, values, (text(min(known)), text(max(known)), text(values[-1])))


def _throttled(told: DeviceHistory, step_s: float) -> list[str]:
    from deviceops.device.v1 import device_status_pb2

    idle = device_status_pb2.DEVICE_THROTTLE_REASON_IDLE
    counts: dict[int, int] = {}
    for sample in told.samples:
        for reason in sample.throttle_reasons:
            if reason != idle:
                counts[reason] = counts.get(reason, 0) + 1
    name = device_status_pb2.DeviceThrottleReason.Name
    return [
        f"below its full clock in {count} of {len(told.samples)} steps of {step_s:g} s: "
        f"{word(name(device_status_pb2.DeviceThrottleReason.ValueType(reason)), 'DEVICE_THROTTLE_REASON_')}"
        for reason, count in counts.items()
    ]
