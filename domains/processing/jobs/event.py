"""The events of a job's journal: the values of `domains.progress`, and those that only the front process knows."""

import msgspec

from domains.device.benchmark import BenchmarkReport
from domains.device.record import DeviceView
from domains.errors import ErrorReason
from domains.failure import Failure
from domains.inference.details import Detailed
from domains.inference.generation import ResolvedGeneration
from domains.inference.recipes import Cause, Comparison
from domains.memory.blobs.blob import Blob
from domains.memory.blobs.transfer_request import TransferReport
from domains.model.benchmark import ModelBenchmarkReport
from domains.model.conversion import ConversionReport
from domains.model.execution import Execution
from domains.model.loaded import LoadedModel
from domains.model.scan import ScanReport
from domains.model.validation import ValidationReport
from domains.model.ways import AS_THE_SERVER_CHOOSES, Ways
from domains.processing.jobs.state import JobState
from domains.progress import Degraded, PreviewReady, Progressed, Receipt, Stage, StageStarted
from domains.stop import Origin


class JobReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a job: the worker's receipt, and the times that only the queue knows."""

    work: Receipt
    queue_s: float
    """Seconds between submission and the first start."""
    run_s: float
    """Seconds between the first start and the end, over all attempts."""
    attempts: int
    device_id: str = ""
    """Empty: the job never ran on a device."""


class LatentFile(msgspec.Struct, frozen=True, kw_only=True):
    """Latents of a picture: where their file is."""

    blob: Blob
    shape: tuple[int, int, int]
    """(channels, height, width)."""
    completed_steps: int


class GeneratedImage(msgspec.Struct, frozen=True, kw_only=True):
    """A finished picture: where its file is, and how to make it again."""

    index: int
    seed: int
    width_px: int
    height_px: int
    blob: Blob
    latents: LatentFile | None = None
    """None: they were not asked for."""
    details: tuple[Detailed, ...] = ()
    """What detail passes have found in it, in the order of their work: the first ones."""


class GenerationResult(msgspec.Struct, frozen=True, kw_only=True, tag="generation"):
    """Everything a generation made."""

    images: tuple[GeneratedImage, ...]
    resolved: ResolvedGeneration
    quantization: str = ""
    """How the denoiser's weights were stored in fewer bits (see `Execution`). Empty: they were not."""
    offload: str = ""
    """Which components waited in host memory (see `Execution`). Empty: none."""
    offload_budget_bytes: int = 0
    """See `Execution`."""
    ways: Ways = AS_THE_SERVER_CHOOSES
    """See `Execution`."""
    precisions: tuple[tuple[str, str], ...] = ()
    """(component, precision of its computation, in torch's words); empty if the job ended before a model was ready."""
    libraries: tuple[str, ...] = ()
    """Versions of the computing libraries: `torch 2.14.1`."""

    @property
    def way(self) -> Execution:
        """How the model computed, without its precisions."""
        return Execution(
            quantization=self.quantization,
            offload=self.offload,
            offload_budget_bytes=self.offload_budget_bytes,
            ways=self.ways,
        )


class ReproductionResult(GenerationResult, frozen=True, kw_only=True, tag="reproduction"):
    """A picture that was made again, and how it compares to the first one."""

    comparison: Comparison
    causes: tuple[Cause, ...] = ()
    """What differed from the first generation, the likeliest cause first."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """The model that was loaded."""

    loaded: LoadedModel
    reused: bool = False
    """Whether it was loaded already when the job began."""


class ScanResult(msgspec.Struct, frozen=True, kw_only=True, tag="scan"):
    """What a scan found."""

    report: ScanReport


class BenchmarkResult(msgspec.Struct, frozen=True, kw_only=True, tag="benchmark"):
    """What a benchmark measured."""

    report: BenchmarkReport


class ModelBenchmarkResult(msgspec.Struct, frozen=True, kw_only=True, tag="model_benchmark"):
    """What a benchmark of a model measured."""

    report: ModelBenchmarkReport


class ResetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a reset did."""

    process: bool
    """True: the worker process was ended. False: only its memory was freed."""
    device_id: str
    freed_bytes: int | None
    ended_loaded_model_ids: tuple[str, ...]
    interrupted_job_ids: tuple[str, ...]
    duration_s: float


class ResetResult(msgspec.Struct, frozen=True, kw_only=True, tag="reset"):
    """What a reset did, and the device after it."""

    report: ResetReport
    view: DeviceView


class TransferResult(msgspec.Struct, frozen=True, kw_only=True, tag="transfer"):
    """What a transfer copied."""

    report: TransferReport


class ValidationResult(msgspec.Struct, frozen=True, kw_only=True, tag="validation"):
    """What a validation found."""

    report: ValidationReport


class ConversionResult(msgspec.Struct, frozen=True, kw_only=True, tag="conversion"):
    """What a conversion of a model made."""

    report: ConversionReport


JobResult = (
    GenerationResult
    | ReproductionResult
    | LoadResult
    | ScanResult
    | BenchmarkResult
    | ModelBenchmarkResult
    | ResetResult
    | TransferResult
    | ValidationResult
    | ConversionResult
)


class Queued(msgspec.Struct, frozen=True, kw_only=True, tag="queued"):
    """The job is stored and waits. Always the first event."""

    position: int


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """The job began to run, for the `attempt`-th time."""

    device_id: str
    attempt: int


class JobProgress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """The job's progress with its rate so far. Only the newest is kept for a late reader."""

    at: Progressed
    elapsed_s: float
    """Seconds since this attempt began."""
    completed_ratio: float | None = None
    """Share of the whole job, 0..1; absent while it cannot be computed (a model loads first)."""
    remaining_s: float | None = None
    """Seconds at the stage's rate; absent until two steps of it were seen."""
    rate_per_s: float | None = None


class OutputReady(msgspec.Struct, frozen=True, kw_only=True, tag="output"):
    """One picture is stored."""

    image: GeneratedImage
    total: int


class Cancelling(msgspec.Struct, frozen=True, kw_only=True, tag="cancelling"):
    """The job was asked to stop."""

    cause: str


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The kept progress of a generation: where its file is, and what it holds."""

    blob_id: str
    sha256: str
    size_bytes: int
    step: int
    """Number of denoising steps that are done."""
    time_s: float
    """Unix time at which it was written."""


class Pausing(msgspec.Struct, frozen=True, kw_only=True, tag="pausing"):
    """The job was asked to pause."""

    origin: Origin = Origin.CALLER
    cause: str = ""


class Paused(msgspec.Struct, frozen=True, kw_only=True, tag="paused"):
    """The job left its device, or never had one, and waits for its resumption."""

    stage: Stage
    completed: int
    """Denoising steps that are kept."""
    origin: Origin = Origin.CALLER
    cause: str = ""
    checkpoint: Checkpoint | None = None
    """The checkpoint that this attempt wrote. None: an earlier one stays, if there is one."""
    work: Receipt = Receipt()
    """The cost of this attempt."""


class Resumed(msgspec.Struct, frozen=True, kw_only=True, tag="resumed"):
    """The paused job waits for its turn again."""

    from_step: int
    """The denoising step that it continues from. 0: from the start."""
    origin: Origin = Origin.CALLER
    cause: str = ""


class Interrupted(msgspec.Struct, frozen=True, kw_only=True, tag="interrupted"):
    """The job left its device before its end (a lost worker, a restart, a preemption) and continues by itself."""

    reason: ErrorReason
    message: str
    crashed: bool = False
    """The worker process died by itself: the job may be the cause."""
    alone: bool = False
    """The job ran alone in that attempt: if a job was the cause, it was this one."""
    checkpoint: Checkpoint | None = None
    """The checkpoint that this attempt wrote. None: an earlier one stays, if there is one."""
    work: Receipt = Receipt()
    """The cost of this attempt, if its worker reported it."""
    left_device_id: str = ""
    """The device on which it runs no more, for lack of memory. Empty: it may run there again."""


class Succeeded(msgspec.Struct, frozen=True, kw_only=True, tag="succeeded"):
    """The end: all outputs were made."""

    result: JobResult
    receipt: JobReceipt


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="job_failed"):
    """The end: the job failed. `result` has what was made before."""

    failure: Failure
    receipt: JobReceipt
    result: JobResult | None = None
    checkpoint: Checkpoint | None = None
    """The checkpoint that this attempt wrote. None: an earlier one stays, if there is one."""


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, tag="cancelled"):
    """The end: the job was stopped; the fields prove it."""

    stage: Stage
    latency_s: float
    """Seconds between the request and the moment when the device had stopped."""
    cause: str
    receipt: JobReceipt
    freed_bytes: int | None = None
    """Bytes that the device's allocator gave back; absent where they cannot be measured."""
    result: JobResult | None = None


JobEvent = (
    Queued
    | Started
    | StageStarted
    | JobProgress
    | PreviewReady
    | OutputReady
    | Degraded
    | Pausing
    | Paused
    | Resumed
    | Cancelling
    | Interrupted
    | Succeeded
    | Failed
    | Cancelled
)
"""All events. Only the newest `JobProgress` and `PreviewReady` are kept; others are durable before they are sent."""

END_STATE: dict[type[JobEvent], JobState] = {
    Succeeded: JobState.SUCCEEDED,
    Failed: JobState.FAILED,
    Cancelled: JobState.CANCELLED,
}

STATE_AFTER: dict[type[JobEvent], JobState] = {
    Queued: JobState.QUEUED,
    Started: JobState.RUNNING,
    Pausing: JobState.PAUSING,
    Paused: JobState.PAUSED,
    Resumed: JobState.QUEUED,
    Cancelling: JobState.CANCELLING,
    Interrupted: JobState.INTERRUPTED,
    **END_STATE,
}
"""The state after each event; events not listed leave the state unchanged."""

NEWEST_ONLY: dict[type[JobEvent], str] = {JobProgress: "progress", PreviewReady: "preview"}
"""Events of which only the newest is kept, with their journal slot."""


def images_of(event: JobEvent) -> tuple[GeneratedImage, ...]:
    """The pictures in an event."""
    match event:
        case OutputReady():
            return (event.image,)
        case Succeeded(result=GenerationResult() as result):
            return result.images
        case Failed(result=GenerationResult() as result) | Cancelled(result=GenerationResult() as result):
            return result.images
        case _:
            return ()
