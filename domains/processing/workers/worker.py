"""What the queue needs of a device worker. `server.worker.link` is the real one: a process at the other end of a pipe."""

import uuid
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from domains.device.benchmark import BenchmarkReport, Suite
from domains.device.device import Device
from domains.device.health import HealthCheck, HealthDepth
from domains.inference.generation import Previews, ResolvedGeneration
from domains.inference.outcome import ImageReady, RunFailed, RunFinished, RunStopped
from domains.memory.blobs.blob import BlobTier
from domains.memory.measure import MemoryMeasure
from domains.model.loaded import LoadedModel
from domains.model.model import Model
from domains.progress import Degraded, PreviewReady, Progressed, StageStarted
from domains.stop import Stop


def new_order_id(kind: str) -> str:
    """A name for an order that belongs to no job."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"


class GenerateOrder(msgspec.Struct, frozen=True, kw_only=True, tag="generate"):
    """Make these pictures; load the model first if it is not loaded."""

    order_id: str
    model: Model
    resolved: ResolvedGeneration
    previews: Previews
    """Those to make: the job's own, or finer ones for those who watch it."""


class PreviewOrder(msgspec.Struct, frozen=True, kw_only=True, tag="previews"):
    """Make these previews from now on. A further message in the call of a `GenerateOrder`; the newest counts."""

    previews: Previews


class LoadOrder(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """Bring this model onto the device."""

    order_id: str
    model: Model


class UnloadOrder(msgspec.Struct, frozen=True, kw_only=True, tag="unload"):
    """Give back what this model holds on the device."""

    order_id: str
    model_id: str


class CheckOrder(msgspec.Struct, frozen=True, kw_only=True, tag="check"):
    """Try whether the device computes right."""

    order_id: str
    depth: HealthDepth


class BenchmarkOrder(msgspec.Struct, frozen=True, kw_only=True, tag="benchmark"):
    """Measure the device."""

    order_id: str
    suites: tuple[Suite, ...]
    max_duration_s: float


class EmptyOrder(msgspec.Struct, frozen=True, kw_only=True, tag="empty"):
    """Give back what caches and the allocator keep for later."""

    order_id: str
    models: bool = False
    """Every model too."""
    compact: bool = False
    """Move what remains together."""


class MeasureOrder(msgspec.Struct, frozen=True, kw_only=True, tag="measure"):
    """Tell how the device's memory is used."""

    order_id: str


class ProbeOrder(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """Try again what the device can do."""

    order_id: str


class AllocateBlobOrder(msgspec.Struct, frozen=True, kw_only=True, tag="allocate_blob"):
    """Take memory for a blob."""

    order_id: str
    blob_id: str
    size_bytes: int
    tier: BlobTier
    """DEVICE or PINNED_HOST."""
    alignment_bytes: int


class WriteBlobOrder(msgspec.Struct, frozen=True, kw_only=True, tag="write_blob"):
    """Put bytes into a blob."""

    order_id: str
    blob_id: str
    offset_bytes: int
    data: bytes


class ReadBlobOrder(msgspec.Struct, frozen=True, kw_only=True, tag="read_blob"):
    """Send bytes of a blob."""

    order_id: str
    blob_id: str
    offset_bytes: int
    size_bytes: int


class HashBlobOrder(msgspec.Struct, frozen=True, kw_only=True, tag="hash_blob"):
    """Go on with the SHA-256 of a blob as it lies there, from one place to another; the first piece begins at 0."""

    order_id: str
    blob_id: str
    begin_bytes: int
    end_bytes: int


class FreeBlobOrder(msgspec.Struct, frozen=True, kw_only=True, tag="free_blob"):
    """Give a blob's memory back."""

    order_id: str
    blob_id: str


BlobOrder = AllocateBlobOrder | WriteBlobOrder | ReadBlobOrder | HashBlobOrder | FreeBlobOrder

Order = (
    GenerateOrder
    | LoadOrder
    | UnloadOrder
    | CheckOrder
    | BenchmarkOrder
    | EmptyOrder
    | MeasureOrder
    | ProbeOrder
    | BlobOrder
)


class ModelLoaded(msgspec.Struct, frozen=True, kw_only=True, tag="model_loaded"):
    """A model is on the device now."""

    loaded: LoadedModel


class ModelUnloaded(msgspec.Struct, frozen=True, kw_only=True, tag="model_unloaded"):
    """A model is no longer on the device."""

    model_id: str
    freed_bytes: int | None
    """What the allocator gave back; absent where that cannot be measured."""


class Checked(msgspec.Struct, frozen=True, kw_only=True, tag="checked"):
    """One check of the device is done."""

    check: HealthCheck


class Benchmarked(msgspec.Struct, frozen=True, kw_only=True, tag="benchmarked"):
    """The device was measured."""

    report: BenchmarkReport


class Emptied(msgspec.Struct, frozen=True, kw_only=True, tag="emptied"):
    """What was given back."""

    freed_bytes: int | None


class Measured(msgspec.Struct, frozen=True, kw_only=True, tag="measured"):
    """How the device's memory is used."""

    measure: MemoryMeasure


class Described(msgspec.Struct, frozen=True, kw_only=True, tag="described"):
    """What the device is and can do."""

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
    | Emptied
    | Measured
    | Described
    | BlobBytes
    | BlobHash
    | FaultStruck
    | Progressed
    | PreviewReady
    | Degraded
    | ImageReady
    | ModelLoaded
    | ModelUnloaded
    | RunFinished
    | RunFailed
    | RunStopped
)
"""What a worker answers to an order. `RunFinished`, `RunFailed` or `RunStopped` is the last, once."""


class WorkerGone(Exception):
    """The worker process ended, or its pipe broke, in mid-order. Not an answer to a caller: the job runs again."""


class WorkerStalled(WorkerGone):
    """The worker told nothing for too long and was ended."""


class Worker(Protocol):
    """A process that owns one device."""

    @property
    def device(self) -> Device:
        """The device, as the worker found it."""
        ...

    @property
    def quiet_s(self) -> float:
        """How long it has told nothing of any order; one that had nothing to do: since it was given its first."""
        ...

    def carry_out(self, order: Order) -> AsyncIterator[Report]:
        """Send an order and follow it to its last report. Raises `WorkerGone`."""
        ...

    def stop(self, order_id: str, stop: Stop) -> None:
        """Ask the worker to end an order at the next safe point; it answers `RunStopped` with the first request."""
        ...

    def show(self, order_id: str, previews: Previews) -> None:
        """Have the order of a generation make these previews from now on. Nothing happens where it is not here."""
        ...

    def end(self, why: str) -> None:
        """End the process now; another is started. Every order on its way raises `WorkerGone`."""
        ...
