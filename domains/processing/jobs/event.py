"""What a job's journal says: the values of `domains.progress` plus those that only the front process can know."""

import msgspec

from domains.device.benchmark import BenchmarkReport
from domains.device.record import DeviceView
from domains.errors import ErrorReason
from domains.failure import Failure
from domains.inference.generation import ResolvedGeneration
from domains.memory.blobs.blob import Blob
from domains.memory.blobs.transfer_request import TransferReport
from domains.model.loaded import LoadedModel
from domains.model.scan import ScanReport
from domains.processing.jobs.state import JobState
from domains.progress import Degraded, PreviewReady, Progressed, Receipt, Stage, StageStarted


class JobReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a job cost: the worker's receipt and what only the queue knows."""

    work: Receipt
    queue_s: float
    """Between being stored and starting."""
    run_s: float
    """Between starting and ending, over all attempts."""
    attempts: int
    device_id: str = ""
    """Empty: it never ran on one."""


class GeneratedImage(msgspec.Struct, frozen=True, kw_only=True):
    """A finished picture: where its file is, and how to make it again."""

    index: int
    seed: int
    width_px: int
    height_px: int
    blob: Blob


class GenerationResult(msgspec.Struct, frozen=True, kw_only=True, tag="generation"):
    """Everything a generation made."""

    images: tuple[GeneratedImage, ...]
    resolved: ResolvedGeneration
    precisions: tuple[tuple[str, str], ...] = ()
    """(component, what it computed in, in torch's words); empty if the job ended before a model was ready."""
    libraries: tuple[str, ...] = ()
    """Versions of what computed: `torch 2.14.1`."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """The model that was loaded."""

    loaded: LoadedModel


class ScanResult(msgspec.Struct, frozen=True, kw_only=True, tag="scan"):
    """What a scan found."""

    report: ScanReport


class BenchmarkResult(msgspec.Struct, frozen=True, kw_only=True, tag="benchmark"):
    """What a benchmark measured."""

    report: BenchmarkReport


class ResetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a reset did."""

    process: bool
    """The worker process was ended; else only what it held."""
    device_id: str
    freed_bytes: int | None
    ended_loaded_model_ids: tuple[str, ...]
    interrupted_job_ids: tuple[str, ...]
    duration_s: float


class ResetResult(msgspec.Struct, frozen=True, kw_only=True, tag="reset"):
    """What a reset did, and the device as it was then."""

    report: ResetReport
    view: DeviceView


class TransferResult(msgspec.Struct, frozen=True, kw_only=True, tag="transfer"):
    """What a transfer copied."""

    report: TransferReport


JobResult = GenerationResult | LoadResult | ScanResult | BenchmarkResult | ResetResult | TransferResult


class Queued(msgspec.Struct, frozen=True, kw_only=True, tag="queued"):
    """Stored; waits. Always the first event."""

    position: int


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """Began to run, for the `attempt`-th time."""

    device_id: str
    attempt: int


class JobProgress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """The job moved on, at the pace it has kept so far. Only the newest is kept for a reader who is late."""

    at: Progressed
    elapsed_s: float
    """Since this attempt began."""
    completed_ratio: float | None = None
    """Share of the whole job, 0..1; absent while that cannot be told (a model is loading first)."""
    remaining_s: float | None = None
    """At the stage's pace; absent until two steps of it were seen."""
    rate_per_s: float | None = None


class OutputReady(msgspec.Struct, frozen=True, kw_only=True, tag="output"):
    """One of the pictures is ready."""

    image: GeneratedImage
    total: int


class Cancelling(msgspec.Struct, frozen=True, kw_only=True, tag="cancelling"):
    """Was asked to stop."""

    cause: str


class Interrupted(msgspec.Struct, frozen=True, kw_only=True, tag="interrupted"):
    """Its worker or the server went away; it goes on by itself."""

    reason: ErrorReason
    message: str
    crashed: bool = False
    """Its worker process died by itself: the job may be the cause."""
    alone: bool = False
    """Nothing ran beside it in that attempt: if a job was the cause, it was this one."""


class Succeeded(msgspec.Struct, frozen=True, kw_only=True, tag="succeeded"):
    """The end: everything was made."""

    result: JobResult
    receipt: JobReceipt


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="job_failed"):
    """The end: it failed. `result` has what was made before."""

    failure: Failure
    receipt: JobReceipt
    result: JobResult | None = None


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, tag="cancelled"):
    """The end: it was stopped, and this is the proof."""

    stage: Stage
    latency_s: float
    """Between the request and the moment when the device had stopped."""
    cause: str
    receipt: JobReceipt
    freed_bytes: int | None = None
    """What the device's allocator gave back; absent where that cannot be measured."""
    result: JobResult | None = None


JobEvent = (
    Queued
    | Started
    | StageStarted
    | JobProgress
    | PreviewReady
    | OutputReady
    | Degraded
    | Cancelling
    | Interrupted
    | Succeeded
    | Failed
    | Cancelled
)
"""All of them. `JobProgress` and `PreviewReady` keep only their newest; the others are durable before they are sent."""

END_STATE: dict[type[JobEvent], JobState] = {
    Succeeded: JobState.SUCCEEDED,
    Failed: JobState.FAILED,
    Cancelled: JobState.CANCELLED,
}

STATE_AFTER: dict[type[JobEvent], JobState] = {
    Queued: JobState.QUEUED,
    Started: JobState.RUNNING,
    Cancelling: JobState.CANCELLING,
    Interrupted: JobState.INTERRUPTED,
    **END_STATE,
}
"""The state that an event brings about; events not listed leave it as it is."""

NEWEST_ONLY: dict[type[JobEvent], str] = {JobProgress: "progress", PreviewReady: "preview"}
"""Events of which a late reader needs only the last, with their journal slot."""


def images_of(event: JobEvent) -> tuple[GeneratedImage, ...]:
    """The pictures of which an event tells."""
    match event:
        case OutputReady():
            return (event.image,)
        case Succeeded(result=GenerationResult() as result):
            return result.images
        case Failed(result=GenerationResult() as result) | Cancelled(result=GenerationResult() as result):
            return result.images
        case _:
            return ()
