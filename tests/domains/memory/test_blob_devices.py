"""Blobs in a worker's memory: the worker's side on torch's CPU, and the store's side over it."""

import asyncio
from pathlib import Path

import pytest
import torch

from domains.errors import (
    Aborted,
    ErrorReason,
    InternalError,
    InvalidRequest,
    NotFound,
    NotSupported,
    ResourceExhausted,
)
from domains.memory.blobs import device_memory
from domains.memory.blobs.blob import Blob, BlobSpec, BlobState, BlobTier
from domains.memory.blobs.device_memory import DeviceBytes
from domains.memory.blobs.quotas import BlobLimits
from domains.memory.on_device.device_blobs import DeviceBlobs
from tests.domains.memory.blobs import MIB, content, opened, sha, some_bytes, uploaded

CPU = torch.device("cpu")


class Worker:
    """What the worker's pipe does, without the pipe; it can be told to lose its device."""

    def __init__(self) -> None:
        self.blobs = DeviceBlobs(CPU)
        self.broken = False

    async def allocate(self, blob_id: str, device_id: str, tier: BlobTier, size: int, alignment: int) -> None:
        self.blobs.allocate(blob_id, tier, size, alignment)

    async def write(self, blob_id: str, offset: int, data: bytes) -> None:
        self.blobs.write(blob_id, offset, data)

    async def read(self, blob_id: str, offset: int, size: int) -> bytes:
        return self.blobs.read(blob_id, offset, size)

    async def sha256(self, blob_id: str, begin: int, end: int) -> str:
        return self.blobs.sha256(blob_id, begin, end)

    async def free(self, blob_id: str) -> None:
        if self.broken:
            raise InternalError("the driver does not answer", ErrorReason.DRIVER_ERROR)
        self.blobs.free(blob_id)


def test_bytes_come_back_as_they_were_written() -> None:
    held = DeviceBlobs(CPU)
    held.allocate("b", BlobTier.DEVICE, 10)
    held.write("b", 0, b"01234")
    held.write("b", 5, b"56789")
    assert held.read("b", 3, 4) == b"3456"
    assert held.sha256("b", 0, 10) == sha(b"0123456789")
    assert held.view("b").tolist() == list(b"0123456789")


def test_a_hash_goes_on_where_it_was_left_and_begins_anew_after_a_write() -> None:
    held = DeviceBlobs(CPU)
    held.allocate("b", BlobTier.DEVICE, 10)
    held.write("b", 0, b"0123456789")
    assert held.sha256("b", 0, 4) == sha(b"0123")
    assert held.sha256("b", 4, 7) == sha(b"0123456")
    # Somebody else hashes the same blob meanwhile.
    assert held.sha256("b", 0, 2) == sha(b"01")
    assert held.sha256("b", 7, 10) == sha(b"0123456789")
    held.sha256("b", 0, 4)
    held.write("b", 0, b"x")
    assert held.sha256("b", 4, 10) == sha(b"x123456789")
    with pytest.raises(InvalidRequest):
        held.sha256("b", 4, 11)


@pytest.mark.parametrize("alignment", [1, 256, 4096, 2 * MIB])
def test_memory_begins_where_it_was_asked_to(alignment: int) -> None:
    held = DeviceBlobs(CPU)
    held.allocate("b", BlobTier.DEVICE, 100, alignment)
    assert held.view("b").data_ptr() % alignment == 0
    assert held.view("b").numel() == 100
    held.allocate("empty", BlobTier.DEVICE, 0, alignment)
    assert held.read("empty", 0, 0) == b""


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0, 11), (10, 1), (5, -1)])
def test_no_byte_outside_the_blob_is_touched(offset: int, size: int) -> None:
    held = DeviceBlobs(CPU)
    held.allocate("b", BlobTier.DEVICE, 10)
    with pytest.raises(InvalidRequest):
        held.read("b", offset, size)
    with pytest.raises(NotFound):
        held.read("other", 0, 0)


def test_too_little_memory_tells_need_and_room() -> None:
    with pytest.raises(ResourceExhausted) as told:
        DeviceBlobs(CPU).allocate("b", BlobTier.DEVICE, 1 << 60)
    assert told.value.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
    assert told.value.facts["needed_bytes"] == str(1 << 60)
    assert int(told.value.facts["available_bytes"]) > 0


def test_only_cuda_page_locks() -> None:
    with pytest.raises(NotSupported) as told:
        DeviceBlobs(CPU).allocate("b", BlobTier.PINNED_HOST, 10)
    assert told.value.reason is ErrorReason.NOT_SUPPORTED_ON_DEVICE


def test_every_byte_has_an_owner() -> None:
    held = DeviceBlobs(CPU)
    held.allocate("a", BlobTier.DEVICE, 10)
    held.allocate("b", BlobTier.DEVICE, 20, 64)
    assert {owner.id: owner.live_bytes for owner in held.owners()} == {"a": 10, "b": 20 + 63}
    held.free("a")
    held.free("a")
    assert {owner.id: owner.live_bytes for owner in held.owners()} == {"b": 20 + 63}


async def test_a_blob_on_a_device_is_written_hashed_read_and_freed(tmp_path: Path) -> None:
    worker = Worker()
    with opened(tmp_path, device_memory=worker) as store:
        data = some_bytes(MIB + 3)
        blob = await uploaded(store, data, BlobTier.DEVICE, "cpu")
        assert (blob.state, blob.sha256, blob.device_id) == (BlobState.READY, sha(data), "cpu")
        assert await content(store, blob.id) == data
        store.delete(blob.id)
        await store.freed()
        assert worker.blobs.owners() == ()


async def test_a_lost_device_takes_its_blobs_with_it(tmp_path: Path) -> None:
    worker = Worker()
    with opened(tmp_path, device_memory=worker) as store:
        ready = await uploaded(store, b"ready", BlobTier.DEVICE, "cpu")
        half = await store.requests.create(BlobSpec(size_bytes=4, tier=BlobTier.DEVICE, device_id="cpu"))
        elsewhere = await uploaded(store, b"else", BlobTier.HOST)
        store.device_lost("cpu")
        for blob in (ready, half):
            assert store.get(blob.id).state is BlobState.LOST
        with pytest.raises(Aborted) as told:
            await content(store, ready.id)
        assert told.value.reason is ErrorReason.DEVICE_LOST
        with pytest.raises(Aborted):
            await store.write_chunk(half.id, 0, b"ab")
        assert await content(store, elsewhere.id) == b"else"
        store.delete(ready.id)
        await store.freed()


async def test_memory_that_could_not_be_freed_is_told_and_freed_later(tmp_path: Path) -> None:
    worker = Worker()
    with opened(tmp_path, device_memory=worker) as store:
        blob = await uploaded(store, b"bytes", BlobTier.DEVICE, "cpu")
        worker.broken = True
        store.delete(blob.id)
        await store.freed()
        assert list(store.unfreed) == [blob.id]
        assert store.unfreed[blob.id].why
        worker.broken = False
        store.collect()
        await store.freed()
        assert store.unfreed == {}
        assert worker.blobs.owners() == ()


async def test_what_a_worker_could_not_free_is_free_when_it_ends(tmp_path: Path) -> None:
    worker = Worker()
    with opened(tmp_path, device_memory=worker) as store:
        blob = await uploaded(store, b"bytes", BlobTier.DEVICE, "cpu")
        worker.broken = True
        store.delete(blob.id)
        await store.freed()
        store.device_lost("cpu")
        assert store.unfreed == {}


async def test_a_lost_blob_holds_nothing_and_counts_against_no_quota(tmp_path: Path) -> None:
    limits = BlobLimits(max_bytes=8)
    with opened(tmp_path, device_memory=Worker(), limits=limits) as store:
        owners = store.owners_in(BlobTier.DEVICE)
        blob = await uploaded(store, b"5byte", BlobTier.DEVICE, "cpu")
        assert [owner.id for owner in owners()] == [blob.id]
        store.device_lost("cpu")
        assert list(owners()) == []
        await store.requests.create(BlobSpec(size_bytes=8))


async def test_an_allocation_that_fails_leaves_no_blob(tmp_path: Path) -> None:
    with opened(tmp_path, device_memory=Worker()) as store:
        with pytest.raises(ResourceExhausted):
            await store.requests.create(BlobSpec(size_bytes=1 << 60, tier=BlobTier.DEVICE, device_id="cpu"))
        await store.freed()
        assert store.all() == []


class NotingWorker(Worker):
    """Notes what it is asked to hash and to free; frees when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.hashed: list[tuple[int, int]] = []
        self.freed: list[str] = []
        self.may_free = asyncio.Event()
        self.may_free.set()

    async def sha256(self, blob_id: str, begin: int, end: int) -> str:
        self.hashed.append((begin, end))
        return await super().sha256(blob_id, begin, end)

    async def free(self, blob_id: str) -> None:
        await self.may_free.wait()
        self.freed.append(blob_id)
        await super().free(blob_id)


async def test_a_whole_blob_is_hashed_by_its_worker_and_a_part_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_memory, "HASH_PIECE_BYTES", 4)
    worker = NotingWorker()
    with opened(tmp_path, device_memory=worker) as store:
        blob = await uploaded(store, b"0123456789", BlobTier.DEVICE, "cpu")
        worker.hashed.clear()
        for begin, end, pieces in ((0, 10, [(0, 4), (4, 8), (8, 10)]), (0, 9, []), (1, 10, [])):
            assert await store.sha256_of(blob.id, begin, end) == sha(b"0123456789"[begin:end])
            assert worker.hashed == pieces
            worker.hashed.clear()
        empty = await uploaded(store, b"", BlobTier.DEVICE, "cpu")
        host = await uploaded(store, b"host", BlobTier.HOST)
        assert await store.sha256_of(empty.id, 0, 0) == sha(b"")
        assert await store.sha256_of(host.id, 0, 4) == sha(b"host")
        assert worker.hashed == []


async def test_memory_is_freed_once_at_a_time_and_what_could_not_be_only_on_its_device() -> None:
    worker = NotingWorker()
    worker.may_free.clear()
    memory = DeviceBytes(worker)
    one, other = (
        Blob(id=name, sha256="", size_bytes=1, media_type="", create_time_s=0.0, tier=BlobTier.DEVICE, device_id=device)
        for name, device in (("b-1", "gpu-1"), ("b-2", "gpu-2"))
    )
    for _ in range(2):
        memory.free(one)
    worker.may_free.set()
    await memory.freed()
    assert worker.freed == ["b-1"]
    worker.broken = True
    for blob in (one, other):
        memory.free(blob)
    await memory.freed()
    assert list(memory.unfreed) == ["b-1", "b-2"]
    memory.lost("gpu-1")
    assert list(memory.unfreed) == ["b-2"]
    worker.broken = False
    memory.retry()
    await memory.freed()
    assert (memory.unfreed, worker.freed) == ({}, ["b-1", "b-1", "b-2", "b-2"])
    DeviceBytes(None).free(one)
