"""Converts jobs and their events to messages.

The responses of WatchJob and of the calls that submit and follow (Generate, LoadModel, ScanModels) have the same field
numbers. So an event is serialised once, as a `WatchJobResponse`, and its bytes are sent to all readers of all calls.
"""

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from deviceops.common.v1 import image_pb2, job_event_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from domains.journal import Entry
from domains.processing.jobs import event as events
from domains.processing.jobs.job import Job, JobRecord, ListedJob
from domains.processing.jobs.kinds import (
    domain_of,
)
from domains.processing.jobs.state import JobState
from domains.processing.jobs.summary import summary
from domains.processing.lanes.waits import Wait
from domains.progress import Degraded, PreviewReady, Receipt, StageStarted
from server import convert
from server.processing.job_kinds import ARM_OF, KIND_OF, put_result, to_image, to_spec
from server.scrub import scrubbed

Update = processing_service_pb2.WatchJobResponse


def rendered(job: Job, entry: Entry[events.JobEvent], state: JobState) -> bytes:
    """The serialised WatchJobResponse of an event; later calls return the same bytes."""
    if not isinstance(entry.rendered, bytes):
        entry.rendered = to_update(job, entry, state).SerializeToString()
    return entry.rendered


def heartbeat(job: Job, sequence: int, now_s: float, quiet_s: float) -> bytes:
    """A serialised heartbeat. The journal does not have it; `sequence` is the last event before it."""
    event = _event(job, sequence, now_s, job.state)
    event.heartbeat.CopyFrom(job_event_pb2.JobHeartbeat(stage=job.stage, quiet_for=convert.to_duration(quiet_s)))
    return Update(event=event).SerializeToString()


def to_update(job: Job, entry: Entry[events.JobEvent], state: JobState) -> Update:
    """The message of a journal entry, with the event's output beside the event."""
    value = entry.value
    event = _event(job, entry.sequence, entry.time_s, state, terminal=type(value) in events.END_STATE)
    update = Update()
    match value:
        case events.Queued():
            event.queued.position = value.position
        case events.Started():
            event.started.device_id = value.device_id
            event.started.attempt = value.attempt
        case StageStarted():
            event.stage_started.stage = value.stage
        case events.JobProgress():
            event.progress.CopyFrom(to_progress(value))
        case PreviewReady():
            event.preview.CopyFrom(_preview(value))
        case events.OutputReady():
            event.output_ready.index = value.image.index
            event.output_ready.total = value.total
            update.image.CopyFrom(to_image(value.image))
        case Degraded():
            event.degraded.CopyFrom(convert.to_degradation(value))
        case events.Pausing():
            event.pausing.origin = _ORIGINS[value.origin]
            event.pausing.cause = value.cause
        case events.Paused():
            event.paused.stage = value.stage
            event.paused.completed = value.completed
            event.paused.origin = _ORIGINS[value.origin]
            event.paused.cause = value.cause
        case events.Resumed():
            event.resumed.from_step = value.from_step
            event.resumed.origin = _ORIGINS[value.origin]
            event.resumed.cause = value.cause
        case events.Cancelling():
            event.cancelling.cause = value.cause
        case events.Interrupted():
            event.interrupted.reason = convert.to_reason(value.reason)
            event.interrupted.message = scrubbed(value.message)
        case events.Succeeded():
            event.succeeded.receipt.CopyFrom(to_receipt(value.receipt))
            put_result(update, job, value.result, value.receipt)
        case events.Failed():
            event.failed.failure.CopyFrom(convert.to_failure(value.failure, entry.time_s, job.domain))
            event.failed.receipt.CopyFrom(to_receipt(value.receipt))
            put_result(update, job, value.result, value.receipt)
        case events.Cancelled():
            event.cancelled.CopyFrom(_cancelled(value))
            put_result(update, job, value.result, value.receipt)
    update.event.CopyFrom(event)
    return update


_ORIGINS = {
    origin: job_event_pb2.JobControlOrigin.Value(f"JOB_CONTROL_ORIGIN_{origin.name}") for origin in events.Origin
}


def _event(
    job: Job, sequence: int, time_s: float, state: JobState, *, terminal: bool = False
) -> job_event_pb2.JobEvent:
    return job_event_pb2.JobEvent(
        job_id=job.id, sequence=sequence, event_time=convert.to_time(time_s), state=to_state(state), terminal=terminal
    )


def to_state(state: JobState) -> job_event_pb2.JobState.ValueType:
    """The contract's value of a state; the names differ in the prefix alone."""
    return job_event_pb2.JobState.Value(f"JOB_STATE_{state.name}")


def to_progress(moved: events.JobProgress) -> job_event_pb2.JobProgress:
    """The message of progress and its rate."""
    return job_event_pb2.JobProgress(
        stage=moved.at.stage,
        completed=moved.at.completed,
        total=moved.at.total,
        unit=moved.at.unit,
        completed_ratio=moved.completed_ratio,
        elapsed=convert.to_duration(moved.elapsed_s),
        remaining=None if moved.remaining_s is None else convert.to_duration(moved.remaining_s),
        rate_per_second=moved.rate_per_s,
    )


def _preview(value: PreviewReady) -> job_event_pb2.JobPreview:
    return job_event_pb2.JobPreview(
        image_index=value.image_index,
        step=value.step,
        data=value.data,
        media_type=value.media_type,
        size=image_pb2.ImageSize(width_px=value.width_px, height_px=value.height_px),
    )


def _cancelled(value: events.Cancelled) -> job_event_pb2.JobCancelled:
    device = value.receipt.device_id
    return job_event_pb2.JobCancelled(
        stage=value.stage,
        latency=convert.to_duration(value.latency_s),
        freed=[job_event_pb2.FreedMemory(device_id=device, freed_bytes=value.freed_bytes)] if device else [],
        receipt=to_receipt(value.receipt),
        cause=value.cause,
    )


def to_receipt(receipt: events.JobReceipt) -> job_event_pb2.Receipt:
    """The message of a receipt."""
    work: Receipt = receipt.work
    return job_event_pb2.Receipt(
        queue_time=convert.to_duration(receipt.queue_s),
        run_time=convert.to_duration(receipt.run_s),
        stages=[
            job_event_pb2.StageTiming(
                stage=timing.stage,
                wall_time=convert.to_duration(timing.wall_s),
                device_time=None if timing.device_s is None else convert.to_duration(timing.device_s),
            )
            for timing in work.timings
        ],
        peak_device_bytes=work.peak_device_bytes,
        peak_host_bytes=work.peak_host_bytes,
        steps_executed=work.steps_executed,
        cache_hits=work.cache_hits,
        degradations=[convert.to_degradation(degraded) for degraded in work.degradations],
        attempts=receipt.attempts,
        device_id=receipt.device_id,
    )


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that appear in the message of a job."""

    keep_jobs_s: float
    """Seconds that an ended job is kept if its options do not say it."""
    prompts_in_lists: bool = True
    """Whether a summary may contain words of the prompt."""


def to_job(job: Job, view: JobView, wait: Wait | None = None) -> job_pb2.Job:
    """The message of a job for GetJob. `wait`: what it waits for now."""
    message = _to_message(job, job.kind, view)
    message.spec.CopyFrom(to_spec(job.work))
    message.summary = summary(job.work, prompts=view.prompts_in_lists)
    put_wait(message, wait)
    put_result(message, job, job.result, job.receipt)
    return message


def to_listed(job: ListedJob, view: JobView, wait: Wait | None = None) -> job_pb2.Job:
    """The message of a job for ListJobs: an empty arm of the spec, and no result. `wait`: what it waits for now."""
    message = _to_message(job, job.kind, view)
    put_wait(message, wait)
    message.spec.SetInParent()
    if arm := ARM_OF.get(job.kind):
        getattr(message.spec, arm).SetInParent()
    has_prompt = message.kind == job_pb2.JOB_KIND_GENERATION
    message.summary = "" if has_prompt and not view.prompts_in_lists else job.summary
    return message


def put_wait(message: job_pb2.Job, wait: Wait | None) -> None:
    """Put what a job waits for into its message."""
    if wait is not None:
        message.waits_for.reason = job_pb2.JobWaitReason.Value(f"JOB_WAIT_REASON_{wait.reason.name}")
        message.waits_for.device_id = wait.device_id
        message.waits_for.detail = scrubbed(wait.detail)
        if wait.ahead is not None:
            message.waits_for.ahead_count = wait.ahead


def _to_message(job: JobRecord, kind: str, view: JobView) -> job_pb2.Job:
    fail_time_s = job.end_time_s or 0.0
    return job_pb2.Job(
        id=job.id,
        state=to_state(job.state),
        kind=KIND_OF.get(kind, job_pb2.JOB_KIND_UNSPECIFIED),
        options=convert.to_options(job.options),
        progress=to_progress(job.progress) if job.progress else None,
        create_time=convert.to_time(job.create_time_s),
        start_time=convert.to_time(job.start_time_s) if job.start_time_s else None,
        end_time=convert.to_time(job.end_time_s) if job.end_time_s else None,
        expire_time=_expiry(job, view.keep_jobs_s),
        device_id=job.device_id,
        attempt=job.attempt,
        last_sequence=job.last_sequence,
        failure=convert.to_failure(job.failure, fail_time_s, domain_of(kind)) if job.failure else None,
        receipt=to_receipt(job.receipt) if job.receipt else None,
        etag=job.etag,
        request_id=job.request_id,
        detached=job.detached,
        parent_job_id=job.parent_id,
        continued_job_id=job.continued_id,
        checkpoint_time=convert.to_time(job.checkpoint.time_s) if job.checkpoint else None,
    )


def _expiry(job: JobRecord, keep_for_s: float) -> Timestamp | None:
    if job.end_time_s is None:
        return None
    return convert.to_time(job.end_time_s + (job.options.keep_for_s or keep_for_s))
