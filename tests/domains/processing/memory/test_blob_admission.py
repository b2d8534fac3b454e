"""Memory that a blob was promised is nobody else's, also before a single byte of it was written."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from domains.errors import DeviceOpsError, ErrorReason
from domains.memory.blobs.blob import BlobSpec, BlobState, BlobTier
from domains.memory.pools.admission import Admission
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.host_pool import HostPool
from domains.memory.pools.pools import Pools
from domains.memory.pools.reservations import Reservations
from domains.processing.memory.blob_admission import PoolBlobAdmission
from tests.domains.memory.blobs import MIB, opened


class SlowToForget(ThreadPoolExecutor):
    """Threads that hold on to each call after they have answered it, as a thread does that is not given its turn."""

    def __init__(self) -> None:
        super().__init__(1)
        self.calls: list[object] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls.append((fn, args, kwargs))
        return super().submit(fn, *args, **kwargs)


async def test_two_unwritten_blobs_do_not_get_the_same_host_memory(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_default_executor(SlowToForget())
    pools = Pools()
    admission = PoolBlobAdmission(Admission(pools, Reservations(pools)), pools, lambda device_id: None)
    with opened(tmp_path, admission=admission) as store:
        pools.add(HostPool(owners=store.owners_in(BlobTier.HOST)))
        room = 64 * MIB
        held = (await pools.measure("host")).held_bytes or 0
        pools.set_budget("host", MemoryBudget(limit_bytes=held + room))
        first = await store.requests.create(BlobSpec(size_bytes=room * 9 // 10, tier=BlobTier.HOST))
        assert first.state is BlobState.WRITING
        with pytest.raises(DeviceOpsError) as caught:
            await store.requests.create(BlobSpec(size_bytes=room * 9 // 10, tier=BlobTier.HOST))
        assert caught.value.reason is ErrorReason.BUDGET_EXCEEDED
        store.delete(first.id)
        await store.requests.create(BlobSpec(size_bytes=room * 8 // 10, tier=BlobTier.HOST))
