"""Orders, reports, and the protocol of a device worker. `server.worker.link` implements it over a pipe."""

import uuid
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from domains.device.benchmark import BenchmarkReport, Suite
from domains.device.device import Device
from domains.device.health import HealthCheck, HealthDepth
from domains.inference.generation import Previews, ResolvedGeneration
from domains.inference.given import Given
from domains.inference.outcome import (
    CheckpointReady,
    ImageReady,
    LatentsReady,
    ModelLoaded,
    ModelPlacing,
    ModelUnloaded,
    RunFailed,
    RunFinished,
    RunStopped,
)
from domains.inference.prompts import FieldPrompt, PromptReading
from domains.inference.textual_inversions import ResolvedTextualInversion
from domains.memory.blobs.blob import BlobTier
from domains.memory.measure import MemoryMeasure
from domains.model.benchmark import ModelBenchmark, ModelBenchmarkReport
from domains.model.execution import AS_USUAL, Execution
from domains.model.model import Model
from domains.progress import Degraded, PreviewReady, Progressed, StageStarted
from domains.stop import Stop


def new_order_id(kind: str) -> str:
    """A new id for an order that belongs to no job."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"


class GenerateOrder(msgspec.Struct, frozen=True, kw_only=True, tag="generate"):
    """Make these pictures; load the model first if it is not loaded."""

    order_id: str
    given: Given
    previews: Previews
    """The job's own previews, or finer ones for its watchers."""


class PreviewOrder(msgspec.Struct, frozen=True, kw_only=True, tag="previews"):
    """Make these previews from now on. A further message in the call of a `GenerateOrder`; the newest counts."""

    previews: Previews


class LoadOrder(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """Bring this model onto the device."""

    order_id: str
    model: Model
    execution: Execution = AS_USUAL


class UnloadOrder(msgspec.Struct, frozen=True, kw_only=True, tag="unload"):
    """Unload this model."""

    order_id: str
    model_id: str


class CheckOrder(msgspec.Struct, frozen=True, kw_only=True, tag="check"):
    """Check whether the device computes correctly."""

    order_id: str
    depth: HealthDepth


class BenchmarkOrder(msgspec.Struct, frozen=True, kw_only=True, tag="benchmark"):
    """Measure the device."""

    order_id: str
    suites: tuple[Suite, ...]
    max_duration_s: float


class ModelBenchmarkOrder(msgspec.Struct, frozen=True, kw_only=True, tag="benchmark_model"):
    """Measure a model on the device."""

    order_id: str
    model: Model
    asked: ModelBenchmark
    cases: tuple[ResolvedGeneration, ...]


class ReadPromptsOrder(msgspec.Struct, frozen=True, kw_only=True, tag="read_prompts"):
    """Read prompts as the model's text encoders do. No weights are loaded."""

    order_id: str
    model: Model
    prompts: tuple[FieldPrompt, ...]
    textual_inversions: tuple[ResolvedTextualInversion, ...] = ()
    words: tuple[Model, ...] = ()
    """The catalogue's entries of the textual inversions, in their order."""


class EmptyOrder(msgspec.Struct, frozen=True, kw_only=True, tag="empty"):
    """Free the memory that caches and the allocator keep for later."""

    order_id: str
    models: bool = False
    """Unload every model too."""
    compact: bool = False
    """Compact the memory that stays allocated."""


class MeasureOrder(msgspec.Struct, frozen=True, kw_only=True, tag="measure"):
    """Measure how the device's memory is used."""

    order_id: str


class ProbeOrder(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """Probe the device's capabilities again."""

    order_id: str


class AllocateBlobOrder(msgspec.Struct, frozen=True, kw_only=True, tag="allocate_blob"):
    """Allocate a blob."""

    order_id: str
    blob_id: str
    size_bytes: int
    tier: BlobTier
    """DEVICE or PINNED_HOST."""
    alignment_bytes: int


class WriteBlobOrder(msgspec.Struct, frozen=True, kw_only=True, tag="write_blob"):
    """Write bytes into a blob."""

    order_id: str
    blob_id: str
    offset_bytes: int
    data: bytes


class ReadBlobOrder(msgspec.Struct, frozen=True, kw_only=True, tag="read_blob"):
    """Read bytes of a blob."""

    order_id: str
    blob_id: str
    offset_bytes: int
    size_bytes: int


class HashBlobOrder(msgspec.Struct, frozen=True, kw_only=True, tag="hash_blob"):
    """Continue the SHA-256 of a blob from one offset to another; the first piece begins at 0."""

    order_id: str
    blob_id: str
    begin_bytes: int
    end_bytes: int


class FreeBlobOrder(msgspec.Struct, frozen=True, kw_only=True, tag="free_blob"):
    """Free a blob."""

    order_id: str
    blob_id: str


BlobOrder = AllocateBlobOrder | WriteBlobOrder | ReadBlobOrder | HashBlobOrder | FreeBlobOrder

Order = (
    GenerateOrder
    | LoadOrder
    | UnloadOrder
    | CheckOrder
    | BenchmarkOrder
    | ModelBenchmarkOrder
    | ReadPromptsOrder
    | EmptyOrder
    | MeasureOrder
    | ProbeOrder
    | BlobOrder
)


class Checked(msgspec.Struct, frozen=True, kw_only=True, tag="checked"):
    """One check of the device is done."""

    check: HealthCheck


class Benchmarked(msgspec.Struct, frozen=True, kw_only=True, tag="benchmarked"):
    """The device was measured."""

    report: BenchmarkReport


class ModelBenchmarked(msgspec.Struct, frozen=True, kw_only=True, tag="model_benchmarked"):
    """A model was measured."""

    report: ModelBenchmarkReport


class PromptsRead(msgspec.Struct, frozen=True, kw_only=True, tag="prompts_read"):
    """Each prompt as each text encoder reads it."""

    readings: tuple[PromptReading, ...]


class Emptied(msgspec.Struct, frozen=True, kw_only=True, tag="emptied"):
    """Memory was freed."""

    freed_bytes: int | None


class Measured(msgspec.Struct, frozen=True, kw_only=True, tag="measured"):
    """Use of the device's memory."""

    measure: MemoryMeasure


class Described(msgspec.Struct, frozen=True, kw_only=True, tag="described"):
    """The device and its capabilities."""

    device: Device


class BlobBytes(msgspec.Struct, frozen=True, kw_only=True, tag="blob_bytes"):
    """Bytes of a blob."""

    data: bytes


class BlobHash(msgspec.Struct, frozen=True, kw_only=True, tag="blob_hash"):
    """SHA-256 of a blob from its start to the end of the piece, 64 hex digits."""

    sha256: str


class FaultStruck(msgspec.Struct, frozen=True, kw_only=True, tag="fault_struck"):
    """A scripted fault of a simulated device is about to take effect."""

    fault_index: int


Report = (
    StageStarted
    | Checked
    | Benchmarked
    | ModelBenchmarked
    | PromptsRead
    | Emptied
    | Measured
    | Described
    | BlobBytes
    | BlobHash
    | FaultStruck
    | Progressed
    | PreviewReady
    | Degraded
    | LatentsReady
    | ImageReady
    | ModelPlacing
    | CheckpointReady
    | ModelLoaded
    | ModelUnloaded
    | RunFinished
    | RunFailed
    | RunStopped
)
"""A worker's reports on an order. Exactly one `RunFinished`, `RunFailed` or `RunStopped` comes last."""


class WorkerGone(Exception):
    """The worker process ended, or its pipe broke, during an order. Callers never see it: the job runs again."""


class WorkerStalled(WorkerGone):
    """The worker reported nothing for too long and was ended."""


class Worker(Protocol):
    """A process that owns one device."""

    @property
    def device(self) -> Device:
        """The device, as the worker probed it."""
        ...

    @property
    def quiet_s(self) -> float:
        """Seconds since the last report; for an idle worker, since its first order."""
        ...

    def carry_out(self, order: Order) -> AsyncIterator[Report]:
        """Send an order and follow it to its last report. Raises `WorkerGone`."""
        ...

    def stop(self, order_id: str, stop: Stop) -> None:
        """Ask the worker to end an order at the next safe point; it answers `RunStopped` with the first request."""
        ...

    def show(self, order_id: str, previews: Previews) -> None:
        """Change the previews of a running generation. Does nothing if the worker does not run the order."""
        ...

    def end(self, why: str) -> None:
        """End the process now; another is started. Every running order raises `WorkerGone`."""
        ...
