"""Results on stdout (tables or protobuf JSON), notices on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.console import Console
    from rich.table import Table

_UNCUT = 4000
"""Characters; wider than any table that is printed."""


def notice(text: str) -> None:
    """Something a person may want to know; never part of the result."""
    print(text, file=sys.stderr, flush=True)


def print_json(message: Message, *, one_line: bool = False) -> None:
    """The canonical protobuf JSON of a message. `one_line` for streams: one message, one line."""
    from google.protobuf import json_format

    print(json_format.MessageToJson(message, indent=None if one_line else 2), flush=True)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """A table as wide as the terminal; into a pipe, nothing is cut off. Without rows, `empty` goes to stderr."""
    lines = list(rows)
    return console().print(table(heads, lines)) if lines else notice(empty)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """The table alone, for a screen that is drawn again and again."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*heads, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def console() -> Console:
    """Stdout."""
    from rich.console import Console

    # A pipe has no width of its own: `grep` and `awk` see whole cells.
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNCUT)


def word(enum_name: str, prefix: str) -> str:
    """`JOB_STATE_RUNNING` → `running`."""
    return enum_name.removeprefix(prefix).lower().replace("_", " ")


def bytes_text(count: int | None) -> str:
    """`1.5 GiB`; None (cannot be measured) is `–`."""
    if count is None:
        return "–"
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def figure(value: float | None, unit: str = "") -> str:
    """`71 °C`, `0.5`; None (cannot be measured) is `–`."""
    return "–" if value is None else f"{value:.4g} {unit}".rstrip()


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
