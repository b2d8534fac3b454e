"""Blobs in the memory of a device, or page-locked for it: a worker holds them, the store only knows their names."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from domains.errors import Aborted, DeviceOpsError, ErrorReason, NotSupported
from domains.memory.blobs.blob import Blob, BlobTier
from domains.memory.blobs.freeing import UnfreedBlob, note_unfreed

Result = TypeVar("Result")

HASH_PIECE_BYTES = 8 * 1024 * 1024
"""What a worker hashes at once: some milliseconds, in which its jobs stand still."""


class DeviceBlobMemory(Protocol):
    """The workers' side. Raises what the worker raised; DEVICE_LOST where it is gone."""

    async def allocate(self, blob_id: str, device_id: str, tier: BlobTier, size: int, alignment: int) -> None:
        """Take the memory now; NOT_SUPPORTED_ON_DEVICE, DEVICE_OUT_OF_MEMORY or HOST_OUT_OF_MEMORY otherwise."""
        ...

    async def write(self, blob_id: str, offset: int, data: bytes) -> None:
        """A piece inside the blob."""
        ...

    async def read(self, blob_id: str, offset: int, size: int) -> bytes:
        """A piece inside the blob."""
        ...

    async def sha256(self, blob_id: str, begin: int, end: int) -> str:
        """Of the content up to `end` as it lies there; the pieces come in order, the first from 0."""
        ...

    async def free(self, blob_id: str) -> None:
        """Give the memory back. Of an unknown blob: nothing."""
        ...


class DeviceBytes:
    """The tiers DEVICE and PINNED_HOST."""

    def __init__(self, memory: DeviceBlobMemory | None) -> None:
        """`memory`: the workers; None: no device of this server holds blobs."""
        self._memory = memory
        self.unfreed: dict[str, UnfreedBlob] = {}
        """Blobs whose memory could not be given back yet; tried again by `retry`."""
        self._freeing: dict[str, asyncio.Task[None]] = {}

    async def allocate(self, blob: Blob, alignment: int) -> None:
        """On its device."""
        if self._memory is None:
            message = f"no device of this server holds blobs in the tier {blob.tier}; use HOST or DISK"
            raise NotSupported(message, device_id=blob.device_id, tier=blob.tier)
        await self._memory.allocate(blob.id, blob.device_id, blob.tier, blob.size_bytes, alignment)

    async def write(self, blob: Blob, offset: int, data: bytes) -> None:
        """A piece."""
        await self._memory_of(blob).write(blob.id, offset, data)

    async def sha256(self, blob: Blob, between: Callable[[], None]) -> str:
        """Reckoned where it lies, in pieces that let the worker do other work; `between` them it may raise."""
        sha256 = ""
        for begin in range(0, blob.size_bytes, HASH_PIECE_BYTES):
            between()
            sha256 = await self._memory_of(blob).sha256(blob.id, begin, min(begin + HASH_PIECE_BYTES, blob.size_bytes))
        return sha256

    async def open(self, blob: Blob) -> "DeviceContent":
        """To read it."""
        return DeviceContent(self._memory_of(blob), blob)

    def free(self, blob: Blob) -> None:
        """Soon, beside the calls: the worker must be asked. What fails is kept in `unfreed`."""
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
        """Ask again for what could not be freed."""
        for unfreed in list(self.unfreed.values()):
            self.free(unfreed.blob)

    async def freed(self) -> None:
        """Wait for all that is being freed."""
        await asyncio.gather(*self._freeing.values())

    def lost(self, device_id: str) -> None:
        """The device's worker is gone, and all memory with it."""
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
        """A piece, copied to the host by the worker."""
        return then(await self._memory.read(self._blob_id, offset, size))

    def close(self) -> None:
        """The worker keeps nothing open."""


def device_lost(blob: Blob) -> Aborted:
    """The error for a blob whose device went away with it."""
    message = f"device {blob.device_id} was lost, and blob {blob.id} with it; make it again"
    return Aborted(message, ErrorReason.DEVICE_LOST, device_id=blob.device_id, blob_id=blob.id)
