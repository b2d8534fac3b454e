"""`deviceops job`: shows all facts of one job, pauses and resumes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls import ids
from server.cli.calls.connection import AddressOption, JsonOption, connect
from server.cli.console.bars import count_text
from server.cli.console.failure import explain_failure
from server.cli.console.printing import bytes_text, duration_s, emit, local_time, notice, print_json, seconds_text, word
from server.cli.console.waiting import devices_of, is_waiting, waits_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from deviceops.device.v1.device_pb2 import Device
    from deviceops.inference.v1.generated_image_pb2 import GeneratedImage
    from deviceops.processing.v1.job_pb2 import Job

app = typer.Typer(help="Tell all about one job, pause or resume it.", no_args_is_help=True)
Fact = tuple[str, str]


@app.callback()
def _group() -> None:
    """Tell all about one job, pause or resume it."""


@app.command()
def show(
    job: Annotated[str, typer.Argument(help="The job's id, or its beginning.")],
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Tell what a job was asked to do, where and when it ran, what it made, and why it failed or waits."""
    from deviceops.processing.v1 import processing_service_pb2

    with connect(address) as connection:
        request = processing_service_pb2.GetJobRequest(job_id=ids.job(connection, job))
        answer = connection.processing.GetJob(request)
        devices = [] if json else devices_of(connection)
    return print_json(answer) if json else _tell(answer.job, devices)


Cause = Annotated[str, typer.Option(help="Why; kept with the job.")]


@app.command()
def pause(
    job: Annotated[str, typer.Argument(help="The job's id, or its beginning.")],
    cause: Cause = "",
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Let a job stand still at its next safe point, with its progress on disk and its device's memory free."""
    from deviceops.processing.v1 import processing_service_pb2

    with connect(address) as connection:
        request = processing_service_pb2.PauseJobRequest(job_id=ids.job(connection, job), cause=cause)
        answer = connection.processing.PauseJob(request)
    return print_json(answer) if json else _tell_state(answer.job)


@app.command()
def resume(
    job: Annotated[str, typer.Argument(help="The job's id, or its beginning.")],
    cause: Cause = "",
    address: AddressOption = None,
    json: JsonOption = False,
) -> None:
    """Let a paused job wait for its turn again; it continues from its last step."""
    from deviceops.processing.v1 import processing_service_pb2

    with connect(address) as connection:
        request = processing_service_pb2.ResumeJobRequest(job_id=ids.job(connection, job), cause=cause)
        answer = connection.processing.ResumeJob(request)
    return print_json(answer) if json else _tell_state(answer.job)


def _tell_state(job: Job) -> None:
    from deviceops.common.v1 import job_event_pb2 as events

    notice(f"Job {job.id} is {word(events.JobState.Name(job.state), 'JOB_STATE_')}.")


def _tell(job: Job, devices: Sequence[Device]) -> None:
    for name, text in facts(job, devices):
        # The text of a failure has a line for each violation.
        first, *others = text.splitlines() or [""]
        emit(f"{name:<{_NAME_WIDTH}}{first}")
        for line in others:
            emit(f"{'':<{_NAME_WIDTH}}{line}")


_NAME_WIDTH = 11


def facts(job: Job, devices: Sequence[Device]) -> Iterator[Fact]:
    """The facts of a job by name, in order of time."""
    from deviceops.common.v1 import job_event_pb2 as events
    from deviceops.processing.v1 import job_pb2

    yield "job", job.id
    yield "kind", word(job_pb2.JobKind.Name(job.kind), "JOB_KIND_")
    yield "state", word(events.JobState.Name(job.state), "JOB_STATE_")
    if is_waiting(job):
        yield "waits for", waits_for(job, devices)
    if job.HasField("progress") and not job.HasField("end_time"):
        yield "progress", count_text(job.progress)
    if job.device_id:
        yield "device", job.device_id + (f", attempt {job.attempt}" if job.attempt > 1 else "")
    yield from _times(job)
    yield from _spec(job)
    if job.HasField("failure"):
        yield "failure", explain_failure(job.failure)
    for image in job.generation_result.images:
        yield f"picture {image.index + 1}", _picture(image)
    if job.request_id:
        yield "request", job.request_id


def _times(job: Job) -> Iterator[Fact]:
    yield "created", local_time(job.create_time)
    if job.HasField("start_time"):
        yield "started", local_time(job.start_time)
    if job.HasField("end_time"):
        yield "ended", local_time(job.end_time)
    if job.HasField("receipt"):
        run, queue = (seconds_text(duration_s(span)) for span in (job.receipt.run_time, job.receipt.queue_time))
        yield "took", f"{run}, after {queue} of waiting"
    if job.HasField("expire_time"):
        yield "kept until", local_time(job.expire_time)


def _spec(job: Job) -> Iterator[Fact]:
    from deviceops.common.v1 import job_event_pb2

    if work := job.spec.WhichOneof("work"):
        yield "asked for", "\n".join(_fields(getattr(job.spec, work))) or "all defaults"
    options = job.options
    if options.devices.device_ids:
        yield "on", ", ".join(options.devices.device_ids)
    if options.priority not in (job_event_pb2.PRIORITY_UNSPECIFIED, job_event_pb2.PRIORITY_NORMAL):
        yield "priority", word(job_event_pb2.Priority.Name(options.priority), "PRIORITY_")
    if options.session_id:
        yield "session", options.session_id


def _fields(message: Message) -> Iterator[str]:
    """Each value that is set in a message, with its path: `sampling.steps: 20`."""
    from google.protobuf import json_format

    told = json_format.MessageToDict(message, preserving_proto_field_name=True)
    yield from _flat("", told)


def _flat(path: str, value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]  # JSON
            yield from _flat(f"{path}.{name}" if path else str(name), inner)  # pyright: ignore[reportUnknownArgumentType]
    else:
        yield f"{path}: {value}"


def _picture(image: GeneratedImage) -> str:
    if not image.HasField("file"):
        return f"not made: {explain_failure(image.failure)}"
    file = image.file
    size = f"{file.size.width_px} × {file.size.height_px} px"
    return f"{file.blob_id}  {file.media_type}, {size}, {bytes_text(file.size_bytes)}, seed {image.seed}"
