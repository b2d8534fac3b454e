"""Blobs on devices, through the workers: the `DeviceBlobMemory` of a server."""

from collections.abc import Callable

from domains.device.devices import Devices
from domains.errors import Aborted, ErrorReason, Unavailable
from domains.memory.blobs.blob import BlobTier
from domains.processing.workers.ask import ask, reports_of
from domains.processing.workers.worker import (
    AllocateBlobOrder,
    BlobBytes,
    BlobHash,
    FreeBlobOrder,
    HashBlobOrder,
    Order,
    ReadBlobOrder,
    Worker,
    WriteBlobOrder,
    new_order_id,
)


class WorkerBlobs:
    """The devices of the blobs. `forget` drops the blobs of a worker that has ended."""

    def __init__(self, devices: Devices, worker_of: Callable[[str], Worker | None]) -> None:
        self._devices = devices
        self._worker_of = worker_of
        self._places: dict[str, str] = {}
        """Device by blob."""

    async def allocate(self, blob_id: str, device_id: str, tier: BlobTier, size: int, alignment: int) -> None:
        """Allocate the memory. `device_id` may be an alias."""
        device_id = self._devices.get(device_id).device.id
        order = AllocateBlobOrder(
            order_id=new_order_id("blob"),
            blob_id=blob_id,
            size_bytes=size,
            tier=tier,
            alignment_bytes=alignment,
        )
        await _done(self._worker(device_id), order)
        self._places[blob_id] = device_id

    async def write(self, blob_id: str, offset: int, data: bytes) -> None:
        """Write a piece inside the blob."""
        order = WriteBlobOrder(order_id=new_order_id("blob"), blob_id=blob_id, offset_bytes=offset, data=data)
        await _done(self._holder(blob_id), order)

    async def read(self, blob_id: str, offset: int, size: int) -> bytes:
        """Read a piece inside the blob."""
        order = ReadBlobOrder(order_id=new_order_id("blob"), blob_id=blob_id, offset_bytes=offset, size_bytes=size)
        return (await ask(self._holder(blob_id), order, BlobBytes)).data

    async def sha256(self, blob_id: str, begin: int, end: int) -> str:
        """The SHA-256, computed by the worker between its other work."""
        order = HashBlobOrder(order_id=new_order_id("blob"), blob_id=blob_id, begin_bytes=begin, end_bytes=end)
        return (await ask(self._holder(blob_id), order, BlobHash)).sha256

    async def free(self, blob_id: str) -> None:
        """Free the memory. Does nothing for an unknown blob."""
        if blob_id in self._places:
            await _done(self._holder(blob_id), FreeBlobOrder(order_id=new_order_id("blob"), blob_id=blob_id))
            del self._places[blob_id]

    def forget(self, device_id: str) -> None:
        """Drop the blobs of a device whose worker has ended."""
        self._places = {blob: place for blob, place in self._places.items() if place != device_id}

    def _holder(self, blob_id: str) -> Worker:
        if blob_id not in self._places:
            message = f"the device that held blob {blob_id} was lost or reset, and the blob with it; make it again"
            raise Aborted(message, ErrorReason.DEVICE_LOST, blob_id=blob_id)
        return self._worker(self._places[blob_id])

    def _worker(self, device_id: str) -> Worker:
        worker = self._worker_of(device_id)
        if worker is None:
            message = f"the worker of {device_id} is being started; try again in a few seconds"
            raise Unavailable(message, ErrorReason.DEVICE_RECOVERING, device_id=device_id)
        return worker


async def _done(worker: Worker, order: Order) -> None:
    async for _ in reports_of(worker, order):
        pass
