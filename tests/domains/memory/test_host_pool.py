"""The host and the disk as this machine has them: known bytes show, and owners add up."""

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.device.cgroup import host_memory
from domains.memory.measure import MemoryOwner, OwnerKind
from domains.memory.pools.disk_pool import DiskPool
from domains.memory.pools.host_pool import HostPool, attributed

MIB = 1024 * 1024


def blob(name: str, size: int) -> MemoryOwner:
    return MemoryOwner(kind=OwnerKind.BLOB, id=name, live_bytes=size)


async def test_known_bytes_show_in_what_is_held() -> None:
    pool = HostPool()
    before = (await pool.measure()).held_bytes or 0
    kept = bytearray(os.urandom(1)) * (64 * MIB)
    after = (await pool.measure()).held_bytes or 0
    assert 60 * MIB <= after - before <= 80 * MIB
    assert len(kept) == 64 * MIB


async def test_a_workers_memory_is_held_until_it_ends() -> None:
    code = "import sys; kept = bytearray(32 * 1024 * 1024); print(flush=True); sys.stdin.read()"
    pipe = asyncio.subprocess.PIPE
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=pipe, stdout=pipe)
    assert worker.stdout is not None
    await worker.stdout.readline()
    alone = (await HostPool().measure()).held_bytes or 0
    pool = HostPool(lambda: [worker.pid])
    both = (await pool.measure()).held_bytes or 0
    assert both - alone >= 30 * MIB
    worker.kill()
    await worker.wait()
    assert abs(((await pool.measure()).held_bytes or 0) - alone) < 8 * MIB


async def test_totals_are_those_of_the_machine_or_its_container() -> None:
    measure = await HostPool().measure()
    assert measure.total_bytes == host_memory().total_bytes
    assert 0 < (measure.used_bytes or 0) <= (measure.total_bytes or 0)


@given(st.lists(st.integers(0, 2**40), max_size=20), st.integers(0, 2**40))
def test_owners_add_up_to_the_live_bytes_exactly(sizes: list[int], live: int) -> None:
    owners = attributed([blob(f"b-{place}", size) for place, size in enumerate(sizes)], live)
    assert sum(owner.live_bytes for owner in owners) == live
    assert all(owner.live_bytes >= 0 for owner in owners)
    assert [owner.live_bytes for owner in owners] == sorted((o.live_bytes for o in owners), reverse=True)


async def test_what_no_owner_explains_is_the_runtimes() -> None:
    measure = await HostPool(owners=lambda: [blob("b-1", MIB)]).measure()
    assert {owner.kind: owner.live_bytes for owner in measure.owners} == {
        OwnerKind.BLOB: MIB,
        OwnerKind.RUNTIME: (measure.live_bytes or 0) - MIB,
    }


async def test_the_disk_tells_blobs_by_owner_and_the_rest_as_runtime(tmp_path: Path) -> None:
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "blobs" / "ab" / "x").write_bytes(bytes(700))
    (tmp_path / "jobs.db").write_bytes(bytes(300))
    measure = await DiskPool(tmp_path, lambda: [blob("b-1", 700)]).measure()
    assert measure.held_bytes == measure.live_bytes == 1000
    assert [(owner.kind, owner.live_bytes) for owner in measure.owners] == [
        (OwnerKind.BLOB, 700),
        (OwnerKind.RUNTIME, 300),
    ]
    usage = psutil.disk_usage(str(tmp_path))
    assert measure.total_bytes == usage.total
    assert (measure.total_bytes or 0) - (measure.used_bytes or 0) == pytest.approx(usage.free, rel=0.05)
