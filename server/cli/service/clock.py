"""`deviceops clock`: the server's date, and whether things expire by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.methods import in_commands
from server.cli.console.printing import duration_s, emit, local_time, print_json, seconds_text
from server.cli.groups import lists_only

if TYPE_CHECKING:
    from deviceops.processing.v1.system_status_pb2 import ClockStatus

app = typer.Typer(help="Tell the server's date, or confirm that it is right.", invoke_without_command=True)


@app.callback()
def clock(context: typer.Context, address: AddressOption = None, json: JsonOption = False) -> None:
    """Tell the server's date, and whether things expire by it."""
    from deviceops.processing.v1 import processing_service_pb2

    if not lists_only(context):
        return None
    with connect(address) as connection:
        answer = connection.processing.GetSystemStatus(processing_service_pb2.GetSystemStatusRequest())
    if json:
        return print_json(answer.status.clock)
    return emit(clock_text(answer.status.clock))


@app.command()
def confirm(
    cause: Annotated[str, typer.Option(help="Why, for the log of changes.")] = "",
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Let the server's date count as right: what is kept for a time expires again."""
    from deviceops.processing.v1 import processing_service_pb2

    with connect(address) as connection:
        answer = connection.processing.ConfirmClock(processing_service_pb2.ConfirmClockRequest(cause=cause))
    if json:
        return print_json(answer)
    return emit(clock_text(answer.status.clock))


def clock_text(clock: ClockStatus) -> str:
    """The date, and why nothing expires by it: two lines at most."""
    date = local_time(clock.read_time)
    if not clock.is_in_doubt:
        return f"{date}: the date counts as right, and things expire by it"
    left = seconds_text(duration_s(clock.agreement_left))
    return f"{date}: the date is in doubt, for {left} more if both clocks agree\n{in_commands(clock.reason)}"
