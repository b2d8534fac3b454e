"""`deviceops events`: every change of state, with what caused it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from server.cli.connection import AddressOption, JsonOption, connect
from server.cli.printing import notice, print_json, word

if TYPE_CHECKING:
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

    chosen = processing_service_pb2.SystemEventFilter(
        kinds=kind or (),
        resource_ids=resource or (),
        min_severity=error_pb2.Severity.Value(f"SEVERITY_{severity.upper()}"),
    )
    seen = 0
    with connect(address) as connection:
        request = processing_service_pb2.WatchEventsRequest(after_sequence=after, filter=chosen)
        for message in connection.processing.WatchEvents(request):
            if not message.HasField("event"):
                _tell_first(message.events_missed)
                continue
            print_json(message, one_line=True) if json else print(line(message.event), flush=True)
            seen += 1
            if seen == limit:
                return


def _tell_first(missed: bool) -> None:
    if missed:
        notice("Events after the asked one are no longer kept; list what matters again.")


def line(event: SystemEvent) -> str:
    """`14:05:09  42 ← 41  error  device.lost  sim-0  the device was pulled out`."""
    import datetime

    from deviceops.common.v1 import error_pb2

    time = event.event_time.ToDatetime(datetime.UTC).astimezone().strftime("%H:%M:%S")
    cause = f" ← {event.cause_sequence}" if event.cause_sequence else ""
    severity = word(error_pb2.Severity.Name(event.severity), "SEVERITY_")
    parts = (time, f"{event.sequence}{cause}", severity, event.kind, event.resource_id, event.message)
    return "  ".join(part for part in parts if part)
