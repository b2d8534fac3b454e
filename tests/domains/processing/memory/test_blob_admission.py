"""Memory that a blob was promised is nobody else's, also before a single byte of it was written."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from domains.errors import DeviceOpsError, ErrorReason, NotFound, Unavailable
from domains.memory.blobs.blob import Blob, BlobSpec, BlobState, BlobTier
from domains.memory.pools.admission import Admission
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.host_pool import HostPool
from domains.memory.pools.pool import PoolKind
from domains.memory.pools.pools import Pools
from domains.memory.pools.reservations import Reservations
from domains.processing.memory.blob_admission import PoolBlobAdmission
from tests.domains.memory.blobs import MIB, opened
from tests.domains.memory.scripted_pool import Bench, ScriptedPool


class SlowToForget(ThreadPoolExecutor):
    """Threads that hold on to each call after they have answered it, as a thread does that is not given its turn."""

    def __init__(self) -> None:
        super().__init__(1)
        self.calls: list[object] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls.append((fn, args, kwargs))
        return super().submit(fn, *args, **kwargs)


def no_session(session_id: str) -> None:
    raise NotFound(f"there is no session {session_id}", ErrorReason.SESSION_NOT_FOUND)


async def test_two_unwritten_blobs_do_not_get_the_same_host_memory(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_default_executor(SlowToForget())
    pools = Pools()
    admission = PoolBlobAdmission(Admission(pools, Reservations(pools)), pools, lambda device_id: None, no_session)
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


async def test_a_blob_on_a_device_is_admitted_where_the_device_takes_it_and_no_session_is(tmp_path: Path) -> None:
    bench, asked = Bench(100), list[str]()

    def check(device_id: str) -> None:
        asked.append(device_id)
        raise Unavailable("it is being restarted", ErrorReason.DEVICE_RECOVERING)

    admission = PoolBlobAdmission(Admission(bench.pools, bench.reservations), bench.pools, check, no_session)
    with pytest.raises(DeviceOpsError) as session:
        admission.check_session("s")
    assert session.value.reason is ErrorReason.SESSION_NOT_FOUND
    blob = Blob(id="b", sha256="", size_bytes=1, media_type="", create_time_s=0.0, device_id="sim-0")
    with pytest.raises(Unavailable):
        async with admission.admit(blob, BlobSpec(size_bytes=1)):
            raise AssertionError("it was let in")
    assert asked == ["sim-0"]


async def test_a_blob_on_the_host_asks_no_device(tmp_path: Path) -> None:
    bench, asked = Bench(100), list[str]()
    bench.pools.add(ScriptedPool(100, "host", PoolKind.HOST))
    admission = PoolBlobAdmission(Admission(bench.pools, bench.reservations), bench.pools, asked.append, no_session)
    blob = Blob(id="b", sha256="", size_bytes=1, media_type="", create_time_s=0.0, tier=BlobTier.HOST)
    begin = time.monotonic()
    async with admission.admit(blob, BlobSpec(size_bytes=1)):
        assert bench.pools.claims.outstanding_bytes("host") == 1
    assert asked == []
    assert [claim.size_bytes for claim in bench.pools.claims.closed("host")] == [1]
    found = bench.pools.get("host").history.query(None, time.time())
    assert found.mean_allocation_bytes == 1
    assert found.allocation_latency is not None
    assert 0 <= found.allocation_latency.longest_s <= time.monotonic() - begin


@pytest.mark.parametrize(
    ("tier", "alignment", "claimed"),
    [(BlobTier.DEVICE, 0, 1000), (BlobTier.DEVICE, 1, 1000), (BlobTier.DEVICE, 256, 1255), (BlobTier.HOST, 256, 1000)],
)
async def test_a_blob_on_a_device_claims_what_its_alignment_can_take_besides(
    tier: BlobTier, alignment: int, claimed: int
) -> None:
    bench, pool = Bench(10_000), "host" if tier is BlobTier.HOST else "sim-0"
    bench.pools.add(ScriptedPool(10_000, pool, PoolKind.HOST if tier is BlobTier.HOST else PoolKind.DEVICE))
    admission = PoolBlobAdmission(
        Admission(bench.pools, bench.reservations), bench.pools, lambda device_id: None, no_session
    )
    device_id = "" if tier is BlobTier.HOST else "sim-0"
    blob = Blob(id="b", sha256="", size_bytes=1000, media_type="", create_time_s=0.0, tier=tier, device_id=device_id)
    async with admission.admit(blob, BlobSpec(size_bytes=1000, alignment_bytes=alignment)):
        assert bench.pools.claims.outstanding_bytes(pool) == claimed
