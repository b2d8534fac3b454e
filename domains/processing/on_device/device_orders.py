"""Orders about the device itself: checks, benchmarks, measuring, emptying, probing, and blobs."""

from collections.abc import Callable, Iterator

import msgspec

from domains.device.on_device import benchmark, health_check
from domains.errors import DeviceOpsError
from domains.inference.on_device import StepLoop
from domains.memory.blobs.blob import BlobTier
from domains.memory.measure import MemoryOwner, OwnerKind
from domains.memory.on_device import allocator
from domains.memory.on_device.device_blobs import DeviceBlobs
from domains.processing.on_device.served_device import ServedDevice
from domains.processing.workers.worker import (
    AllocateBlobOrder,
    Benchmarked,
    BenchmarkOrder,
    BlobBytes,
    BlobHash,
    Checked,
    CheckOrder,
    Described,
    Emptied,
    EmptyOrder,
    FreeBlobOrder,
    HashBlobOrder,
    Measured,
    MeasureOrder,
    Order,
    ProbeOrder,
    ReadBlobOrder,
    Report,
    WriteBlobOrder,
)
from domains.progress import Progressed, Stage, StageStarted, Unit

Stops = Callable[[], bool]
Hint = Callable[[Report], None]


class DeviceOrders:
    """Runs on the thread that ticks the step loop, between two ticks."""

    def __init__(self, steps: StepLoop, served: ServedDevice) -> None:
        self._steps = steps
        self._served = served
        self._device = steps.device
        self._blobs = DeviceBlobs(steps.device)

    def carry_out(self, order: Order, stops: Stops, hint: Hint) -> Iterator[Report]:
        """Yield an order's reports. `stops` is read between pieces of work; `hint` sends reports that may be dropped."""
        match order:
            case CheckOrder():
                hardware = self._steps.hardware
                for check in health_check.run_checks(self._device, order.depth, stops, hardware.corrupt, hardware.room):
                    yield Checked(check=check)
            case BenchmarkOrder():
                yield from self._benchmark(order, stops, hint)
            case EmptyOrder():
                yield Emptied(freed_bytes=self._empty(order))
            case MeasureOrder():
                measure = allocator.measure(self._device, self._owners(), self._served.runtime, self._steps.peak_bytes)
                if measure.pinned_bytes is not None:
                    pinned = measure.pinned_bytes + self._steps.resources.pinned_bytes()
                    measure = msgspec.structs.replace(measure, pinned_bytes=pinned)
                measure = self._steps.hardware.measured(measure)
                yield Measured(
                    measure=msgspec.structs.replace(measure, host_owners=() if self._on_host else self._adapters())
                )
            case ProbeOrder():
                yield Described(device=self._served.probe_again())
            case AllocateBlobOrder():
                self._allocate(order)
            case WriteBlobOrder():
                self._blobs.write(order.blob_id, order.offset_bytes, order.data)
            case ReadBlobOrder():
                yield BlobBytes(data=self._blobs.read(order.blob_id, order.offset_bytes, order.size_bytes))
            case HashBlobOrder():
                yield BlobHash(sha256=self._blobs.sha256(order.blob_id, order.begin_bytes, order.end_bytes))
            case FreeBlobOrder():
                self._blobs.free(order.blob_id)
                self._steps.hardware.free(f"blob {order.blob_id}")
            case _:
                raise AssertionError(f"{type(order).__name__} is not an order about the device")

    def _allocate(self, order: AllocateBlobOrder) -> None:
        owner = f"blob {order.blob_id}"
        if order.tier is BlobTier.DEVICE:
            self._steps.hardware.hold(owner, order.size_bytes + max(0, order.alignment_bytes - 1))
        try:
            self._blobs.allocate(order.blob_id, order.tier, order.size_bytes, order.alignment_bytes)
        except DeviceOpsError:
            self._steps.hardware.free(owner)
            raise

    def _benchmark(self, order: BenchmarkOrder, stops: Stops, hint: Hint) -> Iterator[Report]:
        yield StageStarted(stage=Stage.MEASURING)

        def progress(completed: int, total: int, name: str) -> None:
            hint(Progressed(stage=Stage.MEASURING, completed=completed, total=total, unit=Unit.STEPS))

        report = benchmark.run(
            self._device, order.suites, order.max_duration_s, stops, progress, about=self._served.value
        )
        yield Benchmarked(report=report)

    def _empty(self, order: EmptyOrder) -> int | None:
        before = allocator.measure(self._device, ()).held_bytes
        model_bytes = self._steps.unload_all() if order.models else 0
        self._steps.resources.forget_prompts()
        self._steps.resources.forget_host_copies()
        if order.compact:
            allocator.compact(self._device)
        allocator.empty_caches(self._device)
        after = allocator.measure(self._device, ()).held_bytes
        # Without figures from the allocator, the size of the freed tensors is known.
        return before - after if before is not None and after is not None else model_bytes

    @property
    def _on_host(self) -> bool:
        """Whether the device's memory is the host's."""
        return self._device.type == "cpu" and not self._served.simulated

    def _adapters(self) -> tuple[MemoryOwner, ...]:
        """The memory of the adapters, which are in host memory whatever the device is."""
        return (MemoryOwner(kind=OwnerKind.CACHE, id="adapters", live_bytes=self._steps.resources.adapter_bytes()),)

    def _owners(self) -> list[MemoryOwner]:
        """Owners of the tensors on the device."""
        models = [
            MemoryOwner(kind=OwnerKind.LOADED_MODEL, id=model_id, live_bytes=size)
            for model_id, size in (
                *self._steps.resources.model_bytes().items(),
                *self._steps.resources.control_bytes().items(),
            )
        ]
        jobs = [
            MemoryOwner(kind=OwnerKind.JOB, id=job_id, live_bytes=size)
            for job_id, size in self._steps.job_bytes().items()
        ]
        kept = {"prompts": self._steps.resources.prompt_bytes(), "batches": self._steps.resources.shared_bytes()}
        caches = [MemoryOwner(kind=OwnerKind.CACHE, id=name, live_bytes=size) for name, size in kept.items()]
        adapters = self._adapters() if self._on_host else ()
        return [*models, *jobs, *caches, *adapters, *self._blobs.owners()]
