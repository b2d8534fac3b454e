"""Writes results to stdout (text or protobuf JSON) and notices to stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from domains.amounts import bytes_told
from server.cli.console.failure import CliError
from server.cli.console.streams import loss

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp


class OutputLost(CliError):
    """Stdout cannot be written: its reader has closed it, or the disk is full."""


def notice(text: str) -> None:
    """Write a notice to stderr. It is not part of the result; an error of stderr is ignored."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        # stderr has no reader; the work goes on.
        return


def emit(text: object = "", end: str = "\n") -> None:
    """Write a result or a part of it. Raises `OutputLost`."""
    try:
        print(text, end=end, flush=True)
    except (OSError, ValueError) as error:
        raise OutputLost(*loss(error)) from error


class KeptOutput:
    """Writes results during work, and keeps the first error until the work is done."""

    def __init__(self) -> None:
        self._lost: OutputLost | None = None

    def emit(self, text: object) -> None:
        """Write a result, unless an earlier write failed."""
        if self._lost is None:
            try:
                emit(text)
            except OutputLost as lost:
                self._lost = lost

    def check(self) -> None:
        """Raise the kept `OutputLost`, if any."""
        if self._lost is not None:
            raise self._lost


def json_text(message: Message, *, one_line: bool = False) -> str:
    """The canonical protobuf JSON of a message. `one_line`: without line breaks, for streams."""
    from google.protobuf import json_format

    return json_format.MessageToJson(message, indent=None if one_line else 2)


def print_json(message: Message, *, one_line: bool = False) -> None:
    """Print a message as protobuf JSON. Raises `OutputLost`."""
    emit(json_text(message, one_line=one_line))


def word(enum_name: str, prefix: str) -> str:
    """An enum value's name as a word: `JOB_STATE_RUNNING` → `running`."""
    return enum_name.removeprefix(prefix).lower().replace("_", " ")


def bytes_text(count: int | None) -> str:
    """A size as text: `1.5 GiB`; `–` for None (cannot be measured)."""
    return "–" if count is None else bytes_told(count)


def figure(value: float | None, unit: str = "") -> str:
    """A figure as text: `71 °C`, `0.5`; `–` for None (cannot be measured)."""
    return "–" if value is None else f"{value:.4g} {unit}".rstrip()


def quantity(value: float, unit: str) -> str:
    """A measurement with a UCUM unit as text: `62.8 GFLOP/s`, `1.5 GiB/s`, `3.4 s`, `0.5`."""
    match unit:
        case "By":
            return bytes_text(round(value))
        case "By/s":
            return f"{bytes_text(round(value))}/s"
        case "s":
            return seconds_text(value) if value >= 0.001 else f"{value * 1e6:.3g} µs"
        case "{flop}/s":
            exponent = max(0, min(5, (len(str(int(abs(value)))) - 1) // 3))
            return f"{value / 1000**exponent:.3g} {('', 'k', 'M', 'G', 'T', 'P')[exponent]}FLOP/s"
        case _:
            return figure(value, "" if unit == "1" else unit.replace("Cel", "°C").strip("{}"))


def percent(ratio: float | None) -> str:
    """A ratio as text: `12 %`; `–` for None (cannot be measured)."""
    return "–" if ratio is None else f"{ratio:.0%}".replace("%", " %")


def measured(message: Message, field: str) -> float | None:
    """A number of a message; None: it was not measured."""
    return getattr(message, field) if message.HasField(field) else None


def measured_bytes(message: Message, field: str) -> str:
    """A size of a message as text: `1.5 GiB`; `–` if it was not measured."""
    return bytes_text(getattr(message, field) if message.HasField(field) else None)


def duration_s(duration: Duration) -> float:
    """A duration in seconds."""
    return duration.ToNanoseconds() / 1e9


def seconds_text(seconds: float) -> str:
    """Seconds as text: `212 ms`, `3.4 s`, `2 min 05 s`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def local_time(timestamp: Timestamp) -> str:
    """A time in this machine's time zone as text: `2026-01-31 14:05:09`."""
    import datetime

    return timestamp.ToDatetime(datetime.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def minutes_ago(minutes: float) -> Timestamp:
    """The time that many minutes before now."""
    from google.protobuf.timestamp_pb2 import Timestamp

    then = Timestamp()
    then.GetCurrentTime()
    then.FromNanoseconds(then.ToNanoseconds() - round(minutes * 60e9))
    return then
