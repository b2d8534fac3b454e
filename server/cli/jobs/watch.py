"""`deviceops watch`: follows any job to its end and writes its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, Connection, JsonOption, connect
from server.cli.calls.following import RECONNECT_S, Cursor, follow
from server.cli.console.bars import Bars
from server.cli.console.failure import INTERRUPTED, USAGE, CliError
from server.cli.console.printing import KeptOutput, json_text, notice
from server.cli.console.terminal import outliving_terminal
from server.cli.generation.files import media_type_of, targets
from server.cli.generation.pictures import save_pictures
from server.cli.generation.previews import PreviewFolder, preview_folder
from server.cli.generation.run import check_ended_well

if TYPE_CHECKING:
    from deviceops.common.v1.job_event_pb2 import JobEvent
    from deviceops.inference.v1.generation_pb2 import PreviewOptions
    from deviceops.processing.v1.job_pb2 import Job
    from deviceops.processing.v1.processing_service_pb2 import WatchJobResponse


def watch(
    job: Annotated[str, typer.Argument(help="The job's id, or its beginning.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write its pictures to this file, also of a job that has ended.")
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Go on after the event with this sequence.")] = 0,
    previews: Annotated[
        Path | None, typer.Option(help="Folder for previews, also of a job that another caller submitted.")
    ] = None,
    preview_every: Annotated[int, typer.Option(min=1, max=1000, help="Steps between two previews.")] = 1,
    wait_limit: Annotated[
        float, typer.Option(min=0, help="Seconds to look for a server that went away.")
    ] = RECONNECT_S,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Follow a job to its end. Ctrl-C stops watching; the job goes on.

    If the server goes away it is looked for, and the watch goes on where it was.
    """
    cursor, told = Cursor(job, after), KeptOutput()
    keep, wish = _previews(previews, preview_every, force)
    try:
        with connect(address) as connection:
            cursor.job_id = ids.job(connection, job)
            files = [] if out is None else _targets(_job(connection, cursor.job_id), out, force)
            with outliving_terminal():
                last = _follow(connection, cursor, wait_limit, wish, (keep, _printer(told, json, keep=out is not None)))
                if files:
                    _save(connection, cursor.job_id, files, force, None if json else told)
            if last:
                check_ended_well(last)
    except KeyboardInterrupt:
        to = f" --out {out}" if out else ""
        notice(f"The job goes on: deviceops watch {cursor.job_id} --after {cursor.after}{to}")
        raise typer.Exit(INTERRUPTED) from None
    told.check()


Observer = Callable[["WatchJobResponse"], None]


def _follow(
    connection: Connection,
    cursor: Cursor,
    reconnect_s: float,
    wish: PreviewOptions | None,
    observers: Sequence[Observer],
) -> JobEvent | None:
    """Follow a job. Returns its last event; None: that came before the cursor."""
    last: JobEvent | None = None
    with Bars() as bars:
        line = bars.line(cursor.job_id)
        for message in follow(connection, cursor, reconnect_s, wish):
            line.show(message.event)
            for observe in observers:
                observe(message)
            last = message.event
    return last


def _printer(told: KeptOutput, json: bool, *, keep: bool) -> Observer:
    """The observer that prints each message. Unless `keep`, an error of stdout ends the command."""

    def tell(message: WatchJobResponse) -> None:
        told.emit(json_text(message, one_line=True))
        if not keep:
            told.check()

    return tell if json else lambda message: None


def _job(connection: Connection, job_id: str) -> Job:
    from deviceops.processing.v1 import processing_service_pb2

    return connection.processing.GetJob(processing_service_pb2.GetJobRequest(job_id=job_id)).job


def _targets(job: Job, out: Path, force: bool) -> list[Path]:
    """A file for each picture. Raises `CliError` (usage) for a job without pictures, or an ending of another format."""
    if not job.spec.HasField("generation"):
        raise CliError(f"job {job.id} makes no pictures ({job.summary}); leave --out out", USAGE)
    generation = job.spec.generation
    made = generation.output.media_type or "image/png"
    if out.suffix and media_type_of(None, out) != made:
        raise CliError(f"job {job.id} makes {made}; --out {out} has another ending", USAGE)
    return targets(generation.prompt, out, generation.image_count or 1, made, force)


def _save(connection: Connection, job_id: str, files: Sequence[Path], force: bool, told: KeptOutput | None) -> None:
    save_pictures(connection, _job(connection, job_id).generation_result.images, files, force=force, told=told)


def _previews(folder: Path | None, every: int, force: bool) -> tuple[Observer, PreviewOptions | None]:
    """The observer that writes previews, and the previews to request; without a folder no observer and None."""
    from deviceops.inference.v1.generation_pb2 import PreviewOptions

    if folder is None:
        return lambda message: None, None
    return PreviewFolder(preview_folder(folder, force)), PreviewOptions(every_steps=every)
