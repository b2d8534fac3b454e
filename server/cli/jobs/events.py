"""`deviceops events`: every change of state, with its cause."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.failure import USAGE, CliError, one_line
from server.cli.console.printing import duration_s, emit, notice, print_json, seconds_text, word

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from deviceops.processing.v1.system_event_pb2 import SystemEvent


def events(
    after: Annotated[
        int | None, typer.Option(min=0, help="Begin after this sequence; 0: all that are kept. [default: from now on]")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="`device`, `device.lost` …; may be repeated.")] = None,
    resource: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Of this thing, and what that caused; may be repeated.")
    ] = None,
    severity: Annotated[Literal["info", "warning", "error", "critical"], typer.Option(help="At least.")] = "info",
    limit: Annotated[int, typer.Option(min=0, help="Stop after so many; 0: never.")] = 0,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Follow the log of changes, one line an event, until Ctrl-C. `←` tells which event caused it."""
    from deviceops.common.v1 import error_pb2
    from deviceops.processing.v1 import processing_service_pb2

    check_kinds(kind or ())
    chosen = processing_service_pb2.SystemEventFilter(
        kinds=kind or (),
        resource_ids=resource or (),
        min_severity=error_pb2.Severity.Value(f"SEVERITY_{severity.upper()}"),
    )
    seen = 0
    with connect(address) as connection:
        request = processing_service_pb2.WatchEventsRequest(after_sequence=after, filter=chosen)
        for message in connection.processing.WatchEvents(request):
            if message.events_missed and message.HasField("oldest_event_time"):
                notice(f"Earlier events are gone: this log starts at {_clock(message.oldest_event_time)}.")
            if not message.HasField("event"):
                continue
            print_json(message, one_line=True) if json else emit(line(message.event))
            seen += 1
            if seen == limit:
                return


KINDS = (
    *("blob.corrupt", "blob.expired", "blob.lost"),
    *(
        "device.appeared",
        "device.error",
        "device.lost",
        "device.quarantined",
        "device.responsive",
        "device.returned",
        "device.script_changed",
    ),
    *("device.settings_changed", "device.silent", "device.state_changed"),
    *("job.state_changed", "loaded_model.loaded", "loaded_model.unloaded"),
    *("memory.budget_changed", "memory.pressure_changed", "memory.reclaimed"),
    *("model.added", "model.changed", "model.missing"),
    *("node.joined", "node.left", "node.lost", "node.returned"),
    *("reservation.expired", "reservation.lost", "reservation.preempted"),
    *("session.changed", "session.state_changed"),
    *("system.clock_confirmed", "system.clock_stepped", "system.degraded", "system.draining"),
    *("system.restored", "system.started"),
)
"""Kinds of events, as the contract and the server name them."""


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise `CliError` (usage) for a kind that no event has: a filter by it would wait for ever."""
    known = {*KINDS, *(name.partition(".")[0] for name in KINDS)}
    for kind in kinds:
        if kind not in known:
            near = difflib.get_close_matches(kind, sorted(known), n=3, cutoff=0.5) or sorted({*known} - {*KINDS})
            raise CliError(f"--kind {kind}: there is no such kind of event; nearest: {', '.join(near)}", USAGE)


def _clock(time: Timestamp) -> str:
    """The local time of an event, with the date unless it is today."""
    import datetime

    local = time.ToDatetime(datetime.UTC).astimezone()
    today = local.date() == datetime.datetime.now(local.tzinfo).date()
    return local.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def line(event: SystemEvent) -> str:
    """An event as text: `14:05:09  42 ← 41  error  device.lost  sim-0  the device was pulled out`."""
    from deviceops.common.v1 import error_pb2

    cause = f" ← {event.cause_sequence}" if event.cause_sequence else ""
    severity = word(error_pb2.Severity.Name(event.severity), "SEVERITY_")
    parts = (
        _clock(event.event_time),
        f"{event.sequence}{cause}",
        severity,
        event.kind,
        event.resource_id,
        _what(event),
    )
    return "  ".join(part for part in parts if part)


def _what(event: SystemEvent) -> str:
    """An event's message and reason; for the end of a job also its device and duration."""
    texts = [event.message] if event.message else []
    if event.HasField("failure") and event.failure.message != event.message:
        texts.append(one_line(event.failure))
    elif event.HasField("failure"):
        texts = [one_line(event.failure)]
    if event.job.HasField("receipt") and event.job.receipt.device_id:
        texts.append(f"{seconds_text(duration_s(event.job.receipt.run_time))} on {event.job.receipt.device_id}")
    return "; ".join(texts)
