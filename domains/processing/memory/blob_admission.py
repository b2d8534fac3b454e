"""Admission of blobs: the pool's room, its budget and reservations decide."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from domains.memory.blobs.blob import DEVICE_TIERS, Blob, BlobSpec, BlobTier
from domains.memory.pools.admission import Admission
from domains.memory.pools.history import Allocation
from domains.memory.pools.pool import DISK, HOST
from domains.memory.pools.pools import Pools


class PoolBlobAdmission:
    """The `BlobAdmission` of a server with pools and reservations."""

    def __init__(
        self,
        admission: Admission,
        pools: Pools,
        check_device: Callable[[str], None],
        check_session: Callable[[str], object],
    ) -> None:
        """`check_device` raises DEVICE_NOT_FOUND, DEVICE_DISABLED, DEVICE_LOST or DEVICE_RECOVERING; `check_session` raises
        SESSION_NOT_FOUND or ILLEGAL_STATE."""
        self._admission = admission
        self._pools = pools
        self._check_device = check_device
        self._check_session = check_session

    def check_session(self, session_id: str) -> None:
        """Raise SESSION_NOT_FOUND, and ILLEGAL_STATE for a closed session."""
        self._check_session(session_id)

    @asynccontextmanager
    async def admit(self, blob: Blob, spec: BlobSpec) -> AsyncGenerator[None]:
        """Claim the bytes while they are allocated. The latency of the allocation goes into the pool's history."""
        if blob.device_id:
            self._check_device(blob.device_id)
        # The worker allocates this padding to align the start.
        spare = max(0, spec.alignment_bytes - 1) if blob.tier in DEVICE_TIERS else 0
        claim = await self._admission.admit(pool_of_blob(blob), blob.size_bytes + spare, spec.reservation_id, blob.id)
        begin = time.monotonic()
        try:
            yield
            took_s = time.monotonic() - begin
            allocation = Allocation(time_s=time.time(), took_s=took_s, size_bytes=blob.size_bytes)
            self._pools.get(pool_of_blob(blob)).history.allocated(allocation)
        finally:
            claim.close()


def pool_of_blob(blob: Blob) -> str:
    """The pool of a blob's bytes."""
    match blob.tier:
        case BlobTier.DISK | BlobTier.MAPPED:
            return DISK
        case BlobTier.HOST | BlobTier.PINNED_HOST:
            return HOST
        case BlobTier.DEVICE:
            return blob.device_id
