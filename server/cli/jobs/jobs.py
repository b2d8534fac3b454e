"""`deviceops jobs` and `deviceops cancel`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, Connection, JsonOption, connect
from server.cli.calls.following import Cursor, follow
from server.cli.console.bars import count_text
from server.cli.console.printing import duration_s, emit, local_time, notice, print_json, seconds_text, word
from server.cli.console.tables import GAP, console, natural_width, print_reasons, print_table
from server.cli.console.waiting import reasons_of
from server.cli.generation.run import proof

if TYPE_CHECKING:
    from deviceops.processing.v1.job_pb2 import Job
    from deviceops.processing.v1.processing_service_pb2 import ListJobsResponse


class StateName(StrEnum):
    """Names of job states on the command line."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    PARTIALLY_SUCCEEDED = "partially-succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


_NARROWEST_SUMMARY = 12
_WHOLE = 120
"""Most characters of a summary."""


def jobs(
    state: Annotated[list[StateName] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """List jobs, the newest first; below them why some failed, and what others wait for."""
    with connect(address) as connection:
        answer = _list(connection, state or [], limit)
        reasons = [] if json else reasons_of(connection, answer.jobs)
    if json:
        return print_json(answer)
    heads = ("job", "kind", "state", "progress", "device", "created", "took")
    print_table(*_with_summaries(heads, answer.jobs), "No jobs.")
    return print_reasons(reasons)


def cancel(
    job: Annotated[str, typer.Argument(help="The job's id, or its beginning.")],
    scope: Annotated[
        Literal["now", "after-current", "pending-only"],
        typer.Option(help="At the next safe point, after the picture at work, or only if it has not started."),
    ] = "now",
    cause: Annotated[str, typer.Option(help="Why; kept with the job.")] = "",
    wait: Annotated[bool, typer.Option(help="Wait until it has stopped.")] = True,
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Ask a job to stop, and tell what the server proves about its stop. With --json: its answer to the request."""
    from deviceops.common.v1 import job_event_pb2
    from deviceops.processing.v1 import job_pb2, processing_service_pb2

    chosen = job_pb2.CancelScope.Value(f"CANCEL_SCOPE_{scope.replace('-', '_').upper()}")
    with connect(address) as connection:
        job = ids.job(connection, job)
        request = processing_service_pb2.CancelJobRequest(job_id=job, scope=chosen, cause=cause)
        answer = connection.processing.CancelJob(request)
        if json:
            return print_json(answer)
        stopping = answer.job.state in (job_event_pb2.JOB_STATE_CANCELLING, job_event_pb2.JOB_STATE_CANCELLED)
        if not stopping or not wait:
            return notice(f"Job {job} is {_state(answer.job)}.")
        return _tell_end(connection, job)


def _tell_end(connection: Connection, job_id: str) -> None:
    for message in follow(connection, Cursor(job_id)):
        match message.event.WhichOneof("kind"):
            case "cancelled":
                emit(proof(message.event.cancelled))
            case "succeeded" | "partially_succeeded" | "failed" as kind:
                emit(f"Job {job_id} {kind.replace('_', ' ')} before it could be stopped.")
            case _:
                pass


def _list(connection: Connection, states: list[StateName], limit: int) -> ListJobsResponse:
    from deviceops.common.v1 import job_event_pb2
    from deviceops.processing.v1 import processing_service_pb2

    wanted = [job_event_pb2.JobState.Value(f"JOB_STATE_{state.name}") for state in states]
    answer = processing_service_pb2.ListJobsResponse()
    for page in ids.job_pages(connection, processing_service_pb2.JobFilter(states=wanted), limit):
        answer.jobs.extend(page.jobs)
        answer.next_page_token = page.next_page_token
    return answer


def _row(job: Job) -> tuple[str, ...]:
    from deviceops.processing.v1 import job_pb2

    kind = word(job_pb2.JobKind.Name(job.kind), "JOB_KIND_")
    progress = count_text(job.progress) if job.HasField("progress") else ""
    took = seconds_text(duration_s(job.receipt.run_time)) if job.HasField("receipt") else ""
    return job.id, kind, _state(job), progress, job.device_id, local_time(job.create_time), took


def _with_summaries(heads: tuple[str, ...], jobs: Sequence[Job]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table with the jobs' summaries as the last column: cut to the terminal's width, whole in blocks."""
    rows = [_row(job) for job in jobs]
    room = console().width - natural_width(heads, rows) - GAP
    room = room if room >= _NARROWEST_SUMMARY else _WHOLE
    return (*heads, "about"), [(*row, _cut(job.summary, room)) for row, job in zip(rows, jobs, strict=True)]


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _state(job: Job) -> str:
    from deviceops.common.v1 import job_event_pb2

    return word(job_event_pb2.JobState.Name(job.state), "JOB_STATE_")
