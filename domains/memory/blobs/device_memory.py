"""The tiers DEVICE and PINNED_HOST: a worker holds the bytes, the store knows only the ids."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from domains.errors import Aborted, DeviceOpsError, ErrorReason, NotSupported
from domains.memory.blobs.blob import Blob, BlobTier
from domains.memory.blobs.freeing import UnfreedBlob, note_unfreed

Result = TypeVar("Result")

HASH_PIECE_BYTES = 8 * 1024 * 1024
"""Bytes that a worker hashes in one order. Its jobs pause for these milliseconds."""


class DeviceBlobMemory(Protocol):
    """The workers. Raises the worker's error, or DEVICE_LOST if the worker is gone."""

    async def allocate(self, blob_id: str, device_id: str, tier: BlobTier, size: int, alignment: int) -> None:
        """Allocate the memory; NOT_SUPPORTED_ON_DEVICE, DEVICE_OUT_OF_MEMORY or HOST_OUT_OF_MEMORY otherwise."""
        ...

    async def write(self, blob_id: str, offset: int, data: bytes) -> None:
        """Write a piece inside the blob."""
        ...

    async def read(self, blob_id: str, offset: int, size: int) -> bytes:
        """Read a piece inside the blob."""
        ...

    async def sha256(self, blob_id: str, begin: int, end: int) -> str:
        """The SHA-256 of the content up to `end`. The caller passes the pieces in order, the first from 0."""
        ...

    async def free(self, blob_id: str) -> None:
        """Free the memory. Does nothing for an unknown blob."""
        ...


class DeviceBytes:
    """The tiers DEVICE and PINNED_HOST."""

    def __init__(self, memory: DeviceBlobMemory | None) -> None:
        """`memory`: the workers; None: no device of this server holds blobs."""
        self._memory = memory
        self.unfreed: dict[str, UnfreedBlob] = {}
        """Removed blobs whose memory could not be freed yet; `retry` tries again."""
        self._freeing: dict[str, asyncio.Task[None]] = {}

    async def allocate(self, blob: Blob, alignment: int) -> None:
        """Allocate the memory on the blob's device."""
        if self._memory is None:
            message = f"no device of this server holds blobs in the tier {blob.tier}; use HOST or DISK"
            raise NotSupported(message, device_id=blob.device_id, tier=blob.tier)
        await self._memory.allocate(blob.id, blob.device_id, blob.tier, blob.size_bytes, alignment)

    async def write(self, blob: Blob, offset: int, data: bytes) -> None:
        """Write a piece inside the blob."""
        await self._memory_of(blob).write(blob.id, offset, data)

    async def sha256(self, blob: Blob, between: Callable[[], None]) -> str:
        """The SHA-256, computed by the worker in pieces between its other work. `between` may raise to end it."""
        sha256 = ""
        for begin in range(0, blob.size_bytes, HASH_PIECE_BYTES):
            between()
            sha256 = await self._memory_of(blob).sha256(blob.id, begin, min(begin + HASH_PIECE_BYTES, blob.size_bytes))
        return sha256

    async def open(self, blob: Blob) -> "DeviceContent":
        """Open the blob for reading."""
        return DeviceContent(self._memory_of(blob), blob)

    def free(self, blob: Blob) -> None:
        """Let the worker free the memory, in a task. A failure is kept in `unfreed`."""
        if self._memory is not None and blob.id not in self._freeing:
            task = asyncio.get_running_loop().create_task(self._ask_to_free(self._memory, blob))
            self._freeing[blob.id] = task
            task.add_done_callback(lambda _: self._freeing.pop(blob.id, None))

    async def _ask_to_free(self, memory: DeviceBlobMemory, blob: Blob) -> None:
        try:
            await memory.free(blob.id)
        except DeviceOpsError as error:
            note_unfreed(self.unfreed, blob, error)
        else:
            self.unfreed.pop(blob.id, None)

    def retry(self) -> None:
        """Free again what could not be freed."""
        for unfreed in list(self.unfreed.values()):
            self.free(unfreed.blob)

    async def freed(self) -> None:
        """Wait until the running frees have ended."""
        await asyncio.gather(*self._freeing.values())

    def lost(self, device_id: str) -> None:
        """Forget the blobs of a device whose worker has ended: their memory is free."""
        self.unfreed = {name: each for name, each in self.unfreed.items() if each.blob.device_id != device_id}

    def _memory_of(self, blob: Blob) -> DeviceBlobMemory:
        if self._memory is None:
            raise device_lost(blob)
        return self._memory


class DeviceContent:
    """The memory of one blob on a device."""

    def __init__(self, memory: DeviceBlobMemory, blob: Blob) -> None:
        self._memory = memory
        self._blob_id = blob.id

    async def read(self, offset: int, size: int, then: Callable[[bytes], Result]) -> Result:
        """Read a piece, which the worker copies to the host."""
        return then(await self._memory.read(self._blob_id, offset, size))

    def close(self) -> None:
        """Do nothing: the worker keeps nothing open."""


def device_lost(blob: Blob) -> Aborted:
    """The error for a blob that was lost with its device."""
    message = f"device {blob.device_id} was lost, and blob {blob.id} with it; make it again"
    return Aborted(message, ErrorReason.DEVICE_LOST, device_id=blob.device_id, blob_id=blob.id)
