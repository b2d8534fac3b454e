"""`deviceops watch`: follow any job to its end, from wherever and however often."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.bars import Bars
from server.cli.connection import AddressOption, JsonOption, connect
from server.cli.failure import INTERRUPTED
from server.cli.following import PATIENCE_S, Cursor, follow
from server.cli.generation_run import check_ended_well
from server.cli.printing import notice, print_json


def watch(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    after: Annotated[int, typer.Option(min=0, help="Go on after the event with this sequence.")] = 0,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to look for a server that went away.")] = PATIENCE_S,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Follow a job to its end. Ctrl-C stops watching; the job goes on.

    If the server goes away it is looked for, and the watch goes on where it was.
    """
    cursor = Cursor(job, after)
    try:
        with connect(address) as connection, Bars() as bars:
            line = bars.line(job)
            for message in follow(connection, cursor, patience):
                line.show(message.event)
                if json:
                    print_json(message, one_line=True)
                if cursor.ended:
                    check_ended_well(message.event)
    except KeyboardInterrupt:
        notice(f"The job goes on: deviceops watch {job} --after {cursor.after}")
        raise typer.Exit(INTERRUPTED) from None
