"""Blobs on devices: nothing is done before the worker has answered, and what died with a worker is lost by name."""

import asyncio

import pytest

from domains.errors import Aborted, ErrorReason, ResourceExhausted, Unavailable
from domains.inference.outcome import RunFailed
from domains.memory.blobs.blob import BlobTier
from domains.processing.workers.blobs import WorkerBlobs
from domains.processing.workers.worker import FreeBlobOrder, WriteBlobOrder
from domains.progress import Receipt
from tests.domains.processing.scripted_worker import Floor, ScriptedWorker


@pytest.fixture
def floor(tmp_path_factory: pytest.TempPathFactory) -> Floor:
    return Floor(tmp_path_factory.mktemp("floor"))


@pytest.fixture
def workers(floor: Floor) -> dict[str, ScriptedWorker]:
    return {name: floor.arrive(name) for name in ("sim-0", "sim-1")}


@pytest.fixture
def blobs(floor: Floor, workers: dict[str, ScriptedWorker]) -> WorkerBlobs:
    return WorkerBlobs(floor.devices, workers.get)


async def allocate(blobs: WorkerBlobs, worker: ScriptedWorker, blob_id: str) -> None:
    worker.say()
    await blobs.allocate(blob_id, worker.device.id, BlobTier.DEVICE, 8, 1)


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_blob_is_written_and_freed_only_when_the_worker_has_answered(
    blobs: WorkerBlobs, workers: dict[str, ScriptedWorker]
) -> None:
    worker = workers["sim-0"]
    await allocate(blobs, worker, "b")
    for call, kind in ((blobs.write("b", 0, b"x"), WriteBlobOrder), (blobs.free("b"), FreeBlobOrder)):
        task = asyncio.create_task(call)
        await settle()
        assert isinstance(worker.orders[-1], kind)
        assert not task.done()
        worker.say()
        async with asyncio.timeout(5):
            await task
    await blobs.free("b")
    assert sum(isinstance(order, FreeBlobOrder) for order in worker.orders) == 1


async def test_memory_that_the_worker_refused_is_no_blob(
    blobs: WorkerBlobs, workers: dict[str, ScriptedWorker]
) -> None:
    refusal = RunFailed(reason=ErrorReason.DEVICE_OUT_OF_MEMORY, message="full", facts={}, receipt=Receipt())
    workers["sim-0"].say(refusal)
    with pytest.raises(ResourceExhausted):
        await blobs.allocate("b", "sim-0", BlobTier.DEVICE, 8, 1)
    with pytest.raises(Aborted):
        await blobs.read("b", 0, 1)


async def test_only_the_blobs_of_the_worker_that_ended_are_lost(
    blobs: WorkerBlobs, workers: dict[str, ScriptedWorker]
) -> None:
    for name, worker in workers.items():
        await allocate(blobs, worker, f"on {name}")
    blobs.forget("sim-0")
    with pytest.raises(Aborted) as lost:
        async with asyncio.timeout(5):
            await blobs.write("on sim-0", 0, b"x")
    assert lost.value.reason is ErrorReason.DEVICE_LOST
    workers["sim-1"].say()
    await blobs.write("on sim-1", 0, b"x")
    del workers["sim-1"]
    with pytest.raises(Unavailable):
        await blobs.write("on sim-1", 0, b"x")
