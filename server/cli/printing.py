"""Results on stdout (text or protobuf JSON), notices on stderr: the one place that writes for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from domains.amounts import bytes_told
from server.cli.failure import CliError
from server.cli.streams import loss

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp


class OutputLost(CliError):
    """Stdout cannot be written: its reader has left, or its disk is full."""


def notice(text: str) -> None:
    """Something a person may want to know; never part of the result, and never a reason to stop."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        # Nobody can read it; the work goes on.
        return


def emit(text: object = "", end: str = "\n") -> None:
    """A result, or a part of it. Raises `OutputLost`."""
    try:
        print(text, end=end, flush=True)
    except (OSError, ValueError) as error:
        raise OutputLost(*loss(error)) from error


class KeptOutput:
    """Writes results that accompany work, and keeps the first failure until the work is done."""

    def __init__(self) -> None:
        self._lost: OutputLost | None = None

    def emit(self, text: object) -> None:
        """Write, unless an earlier write failed."""
        if self._lost is None:
            try:
                emit(text)
            except OutputLost as lost:
                self._lost = lost

    def check(self) -> None:
        """Raises the `OutputLost` that was kept."""
        if self._lost is not None:
            raise self._lost


def json_text(message: Message, *, one_line: bool = False) -> str:
    """The canonical protobuf JSON of a message. `one_line` for streams: one message, one line."""
    from google.protobuf import json_format

    return json_format.MessageToJson(message, indent=None if one_line else 2)


def print_json(message: Message, *, one_line: bool = False) -> None:
    """Print a message as protobuf JSON. Raises `OutputLost`."""
    emit(json_text(message, one_line=one_line))


def word(enum_name: str, prefix: str) -> str:
    """`JOB_STATE_RUNNING` → `running`."""
    return enum_name.removeprefix(prefix).lower().replace("_", " ")


def bytes_text(count: int | None) -> str:
    """`1.5 GiB`; None (cannot be measured) is `–`."""
    return "–" if count is None else bytes_told(count)


def figure(value: float | None, unit: str = "") -> str:
    """`71 °C`, `0.5`; None (cannot be measured) is `–`."""
    return "–" if value is None else f"{value:.4g} {unit}".rstrip()


def quantity(value: float, unit: str) -> str:
    """A measurement in UCUM's unit as people write it: `62.8 GFLOP/s`, `1.5 GiB/s`, `3.4 s`, `0.5`."""
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
    """`12 %`; None (cannot be measured) is `–`."""
    return "–" if ratio is None else f"{ratio:.0%}".replace("%", " %")


def measured(message: Message, field: str) -> float | None:
    """A number of a message, or None where it was not measured."""
    return getattr(message, field) if message.HasField(field) else None


def measured_bytes(message: Message, field: str) -> str:
    """A size of a message: `1.5 GiB`, or `–` where it was not measured."""
    return bytes_text(getattr(message, field) if message.HasField(field) else None)


def duration_s(duration: Duration) -> float:
    """Seconds."""
    return duration.ToNanoseconds() / 1e9


def seconds_text(seconds: float) -> str:
    """`212 ms`, `3.4 s`, `2 min 05 s`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def local_time(timestamp: Timestamp) -> str:
    """`2026-01-31 14:05:09`, in this machine's time zone."""
    import datetime

    return timestamp.ToDatetime(datetime.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def minutes_ago(minutes: float) -> Timestamp:
    """That long before now."""
    from google.protobuf.timestamp_pb2 import Timestamp

    then = Timestamp()
    then.GetCurrentTime()
    then.FromNanoseconds(then.ToNanoseconds() - round(minutes * 60e9))
    return then
