"""Blobs in a worker: bytes in tensors on its device, or in page-locked host memory.

One thread at a time. Other code may use a blob's tensor (`view`) as long as the blob exists.
"""

import hashlib

import psutil
import torch

from domains.amounts import bytes_told, compared
from domains.device.on_device.free_memory import free_bytes, wait_for
from domains.device.on_device.torch_errors import translate
from domains.errors import (
    DeviceOpsError,
    ErrorReason,
    InvalidRequest,
    NotFound,
    NotSupported,
    ResourceExhausted,
    Violation,
)
from domains.memory.blobs.blob import BlobTier
from domains.memory.measure import MemoryOwner, OwnerKind

_PIECE_BYTES = 1024 * 1024
_OUT_OF_MEMORY = (ErrorReason.DEVICE_OUT_OF_MEMORY, ErrorReason.HOST_OUT_OF_MEMORY)


class _Held:
    """The memory of one blob."""

    def __init__(self, whole: torch.Tensor, size: int, alignment: int, tier: BlobTier) -> None:
        self.tier = tier
        self.taken_bytes = whole.numel()
        """Allocated bytes, with the padding of the alignment."""
        begin = -whole.data_ptr() % alignment if size else 0
        self.bytes = whole[begin : begin + size]
        self.digest = hashlib.sha256()
        self.hashed_bytes = 0
        """Bytes that `digest` covers."""


class DeviceBlobs:
    """The blobs of one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._held: dict[str, _Held] = {}

    def allocate(self, blob_id: str, tier: BlobTier, size: int, alignment: int = 0) -> None:
        """Allocate `size` bytes at a multiple of `alignment` (a power of two; 0: the allocator's default).

        Raises NOT_SUPPORTED_ON_DEVICE, or an out-of-memory reason with the needed and available bytes.
        """
        if blob_id in self._held:
            raise AssertionError(f"blob {blob_id} has memory already")
        if tier is BlobTier.PINNED_HOST and self.device.type != "cuda":
            message = f"{self.device} cannot page-lock host memory; use the tier HOST"
            raise NotSupported(message, device_id=self.device, tier=tier)
        spare = alignment - 1 if alignment > 1 else 0
        self._held[blob_id] = _Held(self._take(tier, size + spare), size, max(1, alignment), tier)

    def _take(self, tier: BlobTier, size: int) -> torch.Tensor:
        pinned = tier is BlobTier.PINNED_HOST
        room = psutil.virtual_memory().available if pinned else free_bytes(self.device)
        if size > room:
            raise self._no_room(tier, size, room)
        try:
            if pinned:
                return torch.empty(size, dtype=torch.uint8, pin_memory=True)
            return torch.empty(size, dtype=torch.uint8, device=self.device)
        except (RuntimeError, MemoryError) as error:
            told = translate(error, self.device, f"taking {bytes_told(size)} for a blob")
            raise self._no_room(tier, size, room) if told.reason in _OUT_OF_MEMORY else told from error

    def _no_room(self, tier: BlobTier, needed: int, available: int) -> ResourceExhausted:
        pinned = tier is BlobTier.PINNED_HOST
        where = "page-locked host memory" if pinned else f"the memory of {self.device}"
        need, there = compared(needed, available)
        return ResourceExhausted(
            f"{need} of {where} are needed and {there} are available; delete blobs or unload a model",
            ErrorReason.HOST_OUT_OF_MEMORY if pinned else ErrorReason.DEVICE_OUT_OF_MEMORY,
            needed_bytes=needed,
            available_bytes=available,
            device_id=self.device,
        )

    def view(self, blob_id: str) -> torch.Tensor:
        """The bytes as a tensor uint8[size], not a copy."""
        held = self._held.get(blob_id)
        if held is None:
            message = f"there is no blob {blob_id!r} on {self.device}"
            raise NotFound(message, ErrorReason.BLOB_NOT_FOUND, blob_id=blob_id)
        return held.bytes

    def write(self, blob_id: str, offset: int, data: bytes) -> None:
        """Write a piece inside the blob, and wait until it is written."""
        part = self._part(blob_id, offset, len(data))
        if data:
            self._held[blob_id].hashed_bytes = 0
            part.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            self._wait()

    def read(self, blob_id: str, offset: int, size: int) -> bytes:
        """Read a piece inside the blob, copied to the host."""
        part = self._part(blob_id, offset, size)
        try:
            return part.cpu().numpy().tobytes()
        except RuntimeError as error:
            raise self._told(error) from error

    def sha256(self, blob_id: str, begin: int, end: int) -> str:
        """The SHA-256 of the content up to `end`. Continues at `begin` if the last call ended there."""
        self._part(blob_id, begin, end - begin)
        held = self._held[blob_id]
        if begin == 0 or held.hashed_bytes != begin:
            held.digest, begin = hashlib.sha256(), 0
        for offset in range(begin, end, _PIECE_BYTES):
            held.digest.update(self.read(blob_id, offset, min(_PIECE_BYTES, end - offset)))
        held.hashed_bytes = end
        return held.digest.hexdigest()

    def free(self, blob_id: str) -> None:
        """Free the memory. Does nothing for an unknown blob."""
        self._held.pop(blob_id, None)

    def owners(self, tier: BlobTier = BlobTier.DEVICE) -> tuple[MemoryOwner, ...]:
        """The blobs of a tier as owners, without sessions, which only the server knows."""
        return tuple(
            MemoryOwner(kind=OwnerKind.BLOB, id=blob_id, live_bytes=held.taken_bytes)
            for blob_id, held in self._held.items()
            if held.tier is tier
        )

    def _part(self, blob_id: str, offset: int, size: int) -> torch.Tensor:
        view = self.view(blob_id)
        if offset < 0 or size < 0 or offset + size > view.numel():
            message = f"{size} bytes at {offset} are not inside the blob's {view.numel()}"
            raise InvalidRequest([Violation(field="offset_bytes", message=message, allowed=f"0..{view.numel()}")])
        return view[offset : offset + size]

    def _wait(self) -> None:
        try:
            wait_for(self.device)
        except RuntimeError as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> DeviceOpsError:
        return translate(error, self.device, "copying a blob")
