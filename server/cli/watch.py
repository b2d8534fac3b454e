"""`deviceops watch`: follow any job to its end, from wherever and however often."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.bars import Bars
from server.cli.connection import AddressOption, JsonOption, connect
from server.cli.failure import INTERRUPTED
from server.cli.files import make_folder
from server.cli.following import PATIENCE_S, Cursor, follow
from server.cli.generation_run import check_ended_well
from server.cli.previews import PreviewFolder
from server.cli.printing import notice, print_json

if TYPE_CHECKING:
    from deviceops.inference.v1.generation_pb2 import PreviewOptions
    from deviceops.processing.v1.processing_service_pb2 import WatchJobResponse


def watch(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    after: Annotated[int, typer.Option(min=0, help="Go on after the event with this sequence.")] = 0,
    previews: Annotated[
        Path | None, typer.Option(help="Folder for previews, also of a job that somebody else submitted.")
    ] = None,
    preview_every: Annotated[int, typer.Option(min=1, max=1000, help="Steps between two previews.")] = 1,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to look for a server that went away.")] = PATIENCE_S,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Follow a job to its end. Ctrl-C stops watching; the job goes on.

    If the server goes away it is looked for, and the watch goes on where it was.
    """
    cursor = Cursor(job, after)
    keep, wish = _previews(previews, preview_every)
    try:
        with connect(address) as connection, Bars() as bars:
            line = bars.line(job)
            for message in follow(connection, cursor, patience, wish):
                line.show(message.event)
                keep(message)
                if json:
                    print_json(message, one_line=True)
                if cursor.ended:
                    check_ended_well(message.event)
    except KeyboardInterrupt:
        notice(f"The job goes on: deviceops watch {job} --after {cursor.after}")
        raise typer.Exit(INTERRUPTED) from None


def _previews(folder: Path | None, every: int) -> tuple[Callable[[WatchJobResponse], None], PreviewOptions | None]:
    """What keeps previews, and what to ask of the server; without a folder neither."""
    from deviceops.inference.v1.generation_pb2 import PreviewOptions

    if folder is None:
        return lambda message: None, None
    make_folder(folder)
    return PreviewFolder(folder), PreviewOptions(every_steps=every)
