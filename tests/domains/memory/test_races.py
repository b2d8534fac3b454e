"""What changes between a check and the use that it allows is noticed: a swapped file, a shrunk one, a full disk."""

import asyncio
import errno
import gc
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from domains.device.cgroup import HostMemory
from domains.errors import (
    AlreadyExists,
    DataLoss,
    DeviceOpsError,
    ErrorReason,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from domains.memory.blobs import files, host_memory, mapped, mapped_tier, registration_look
from domains.memory.blobs.blob import Blob, BlobSpec, BlobState, BlobTier, MappedFile, SharedMemorySegment
from domains.memory.blobs.device_memory import DeviceBytes
from domains.memory.blobs.registration_look import look_at_memory
from domains.memory.blobs.registration_request import Registration
from domains.memory.blobs.store import BlobStore
from domains.memory.blobs.tiers import to_end
from domains.memory.measure import MemoryMeasure
from domains.memory.pools import gauge, reservations
from domains.memory.pools.admission import Admission
from domains.memory.pools.reservation import ReservationAsk
from tests.domains.memory.blobs import content, sha, uploaded
from tests.domains.memory.blobs import files as files_of
from tests.domains.memory.scripted_pool import Bench, ScriptedPool


@pytest.fixture
def path(blobs: BlobStore) -> Path:
    """A file that may be mapped."""
    path = blobs.files.folder.parent / "shared" / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"01234567")
    return path


def written(path: Path) -> None:
    path.write_bytes(b"01234567")


def of(path: Path, **more: Any) -> Registration:
    return Registration(backing=MappedFile(path=str(path)), blob_id="it", **more)


def before_opening(monkeypatch: pytest.MonkeyPatch, path: Path, change: Callable[[], None], then: Callable[[], None]):
    """Change something directly before a file is opened, and something else directly after."""
    really_open = os.open

    def changed(name: object, *more: Any, **most: Any) -> int:
        if name != path:
            return really_open(cast(Any, name), *more, **most)
        change()
        try:
            return really_open(cast(Any, name), *more, **most)
        finally:
            then()

    monkeypatch.setattr(os, "open", changed)


async def test_a_file_that_becomes_a_link_before_it_is_opened_is_not_followed(
    blobs: BlobStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap() -> None:
        path.rename(path.with_suffix(".moved"))
        path.symlink_to(path.with_suffix(".moved"))

    before_opening(monkeypatch, path, swap, lambda: None)
    with pytest.raises(NotFound) as caught:
        await blobs.requests.register(of(path))
    assert caught.value.reason is ErrorReason.PATH_NOT_FOUND


async def test_a_folder_that_is_a_link_only_while_the_file_is_opened_is_noticed(
    blobs: BlobStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(b"a secret")

    def swap() -> None:
        path.parent.rename(tmp_path / "moved")
        path.parent.symlink_to(elsewhere)

    def restore() -> None:
        path.parent.unlink()
        (tmp_path / "moved").rename(path.parent)

    before_opening(monkeypatch, path, swap, restore)
    with pytest.raises(NotFound):
        await blobs.requests.register(of(path))
    assert blobs.all() == []


async def test_a_file_that_cannot_be_opened_says_why(
    blobs: BlobStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny() -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    before_opening(monkeypatch, path, deny, lambda: None)
    with pytest.raises(FailedPrecondition, match="cannot be opened: Permission denied; let the server read it"):
        await blobs.requests.register(of(path))


async def test_a_loop_of_links_and_a_name_too_long_lead_nowhere(blobs: BlobStore, path: Path) -> None:
    loop = path.parent / "loop"
    loop.symlink_to(loop)
    for bad in (loop / "file", path.parent / ("x" * 300) / "file"):
        with pytest.raises((PermissionDenied, NotFound, FailedPrecondition)) as caught:
            await blobs.requests.register(of(bad))
        assert caught.value.reason in (
            ErrorReason.PATH_OUTSIDE_ROOTS,
            ErrorReason.PATH_NOT_FOUND,
            ErrorReason.ILLEGAL_STATE,
        )


async def test_a_file_that_shrinks_while_it_is_hashed_is_refused_or_lost(
    blobs: BlobStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shrink(descriptor: int, begin: int, size: int) -> str | None:
        os.truncate(path, 3)
        return mapped.hash_of(descriptor, begin, size)

    with monkeypatch.context() as patched:
        patched.setattr(registration_look, "hash_of", shrink)
        with pytest.raises(FailedPrecondition, match="has 3 bytes"):
            await blobs.requests.register(of(path))
    written(path)
    await blobs.requests.register(of(path))
    os.utime(path, (1, 1))
    monkeypatch.setattr(mapped_tier, "hash_of", shrink)
    with pytest.raises(FailedPrecondition, match="has shrunk"):
        await content(blobs, "it")
    assert blobs.get("it").state is BlobState.LOST


async def test_a_pipe_in_the_place_of_a_mapped_file_is_not_read(blobs: BlobStore, path: Path) -> None:
    await blobs.requests.register(of(path))
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(FailedPrecondition, match="no regular file now"):
        await content(blobs, "it")
    assert blobs.get("it").state is BlobState.LOST


def test_a_file_that_shrinks_as_it_is_mapped_is_not_touched(
    blobs: BlobStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_map = mmap.mmap

    def shrinking(*given: Any, **named: Any) -> mmap.mmap:
        made = really_map(*given, **named)
        os.truncate(path, 7)
        return made

    with mapped.pages(path, 3, 5, blobs_roots(blobs)) as view:
        assert bytes(view) == b"34567"
    monkeypatch.setattr(mapped.mmap, "mmap", shrinking)
    with pytest.raises(EOFError, match="shrank"), mapped.pages(path, 3, 5, blobs_roots(blobs)):
        raise AssertionError("it was let in")


def blobs_roots(blobs: BlobStore) -> Any:
    return mapped_tier.BlobRoots([blobs.files.folder.parent / "shared"])


async def test_a_registration_takes_no_id_of_another_blob_and_no_session(blobs: BlobStore, path: Path) -> None:
    upload = await uploaded(blobs, b"0123")
    asked = Registration(backing=MappedFile(path=str(path)), session_id="s")
    with pytest.raises(NotFound) as session:
        await blobs.requests.register(asked)
    assert session.value.reason is ErrorReason.SESSION_NOT_FOUND
    with pytest.raises(AlreadyExists, match="was not registered"):
        blobs.requests._registrations._check_replaceable(upload, of(path), same=False)  # pyright: ignore


class View:
    """Named shared memory of 8 bytes."""

    size_bytes = 8
    closed = 0

    def read(self, offset: int, size: int) -> bytes:
        return b"01234567"[offset : offset + size]

    def close(self) -> None:
        self.closed += 1

    @staticmethod
    def opened(view: "View") -> Callable[[str], "View"]:
        def of_name(name: str) -> View:
            return view

        return of_name


def test_shared_memory_is_registered_to_its_last_byte_and_closed_where_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = View()
    monkeypatch.setattr(registration_look, "open_shared_memory", View.opened(view))

    def looked(offset: int, size: int, **more: Any) -> str:
        backing = SharedMemorySegment(name="deviceops-x", offset_bytes=offset)
        return look_at_memory(Registration(backing=backing, size_bytes=size, **more), backing).sha256

    assert looked(3, 5) == sha(b"34567")
    assert looked(3, 5, verify=False, sha256="given") == "given"
    assert view.closed == 0
    for offset, size in ((3, 6), (9, 0), (0, 9)):
        with pytest.raises(FailedPrecondition, match="has 8 bytes"):
            looked(offset, size)
    with pytest.raises(DataLoss):
        looked(0, 8, sha256="0" * 64)
    assert view.closed == 4


async def test_a_file_that_is_cut_off_while_it_is_read_is_corrupt(blobs: BlobStore) -> None:
    blob = await uploaded(blobs, b"01234567")
    (file,) = blobs.files.folder.glob("*/*")

    async def read() -> None:
        async with blobs.reading(blob.id) as reader:
            os.truncate(file, 3)
            await reader.read(0, 8, len)

    with pytest.raises(DataLoss, match="cut off at 3 bytes"):
        await read()
    assert blobs.get(blob.id).state is BlobState.CORRUPT


async def test_a_disk_that_fills_meanwhile_is_told_and_nothing_stays(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "take_room", full)
        with pytest.raises(ResourceExhausted) as caught:
            await blobs.requests.create(BlobSpec(size_bytes=8))
    assert caught.value.reason is ErrorReason.STORAGE_FULL
    assert (files_of(blobs), blobs.all()) == ([], [])

    class Usage:
        free = 8

        @classmethod
        def of(cls, folder: Path) -> type["Usage"]:
            return cls

    monkeypatch.setattr(files.shutil, "disk_usage", Usage.of)
    await blobs.requests.create(BlobSpec(size_bytes=8))
    with pytest.raises(ResourceExhausted):
        await blobs.requests.create(BlobSpec(size_bytes=9))


async def test_host_memory_is_given_to_its_last_byte(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "host_memory", lambda: HostMemory(total_bytes=100, used_bytes=92))
    await blobs.requests.create(BlobSpec(size_bytes=8, tier=BlobTier.HOST))
    with pytest.raises(ResourceExhausted) as caught:
        await blobs.requests.create(BlobSpec(size_bytes=9, tier=BlobTier.HOST))
    assert caught.value.reason is ErrorReason.HOST_OUT_OF_MEMORY

    def none(size: int, alignment: int) -> memoryview:
        raise MemoryError

    monkeypatch.setattr(host_memory, "aligned_pages", none)
    with pytest.raises(ResourceExhausted) as refused:
        await blobs.requests.create(BlobSpec(size_bytes=8, tier=BlobTier.HOST))
    assert refused.value.reason is ErrorReason.HOST_OUT_OF_MEMORY
    assert len(blobs.all()) == 1


async def test_a_blob_that_was_lost_with_its_device_is_neither_read_nor_written(blobs: BlobStore) -> None:
    lost = Blob(
        id="it",
        sha256="",
        size_bytes=1,
        media_type="",
        create_time_s=0.0,
        tier=BlobTier.DEVICE,
        device_id="gpu",
        state=BlobState.LOST,
    )
    blobs._rows.put(lost)  # pyright: ignore[reportPrivateUsage]  # as a lost device leaves it
    with pytest.raises(DeviceOpsError) as written, blobs.writing("it"):
        raise AssertionError("it was let in")
    assert written.value.reason is ErrorReason.DEVICE_LOST
    with pytest.raises(DeviceOpsError) as read:
        await DeviceBytes(None).open(lost)
    assert read.value.reason is ErrorReason.DEVICE_LOST
    disk = await blobs.requests.create(BlobSpec(size_bytes=1))
    blobs._rows.put(msgspec.structs.replace(disk, state=BlobState.LOST))  # pyright: ignore
    with pytest.raises(FailedPrecondition) as other, blobs.writing(disk.id):
        raise AssertionError("it was let in")
    assert other.value.reason is ErrorReason.ILLEGAL_STATE


async def test_a_caller_that_leaves_is_cancelled_after_its_work_has_ended() -> None:
    go, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go.wait()
        ended.set()

    caller = asyncio.create_task(to_end(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


async def test_a_source_that_does_not_answer_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    monkeypatch.setattr(gauge, "TIMEOUT_S", 0.01)

    async def silent() -> MemoryMeasure:
        await asyncio.Event().wait()
        raise AssertionError

    bench.source.measure = silent
    with pytest.raises(Unavailable, match="did not answer within") as caught:
        await bench.pools.measure("sim-0")
    assert caught.value.reason is ErrorReason.WORKER_RESTARTING


@pytest.mark.parametrize("end", ["error", "cancel"])
async def test_a_measurement_that_ends_after_its_caller_left_is_no_report_of_asyncio(end: str) -> None:
    bench = Bench()
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    begun, go = asyncio.Event(), asyncio.Event()

    async def failing() -> MemoryMeasure:
        begun.set()
        await go.wait()
        raise Unavailable("no answer", ErrorReason.WORKER_RESTARTING)

    bench.source.measure = failing
    before = asyncio.all_tasks()
    caller = asyncio.create_task(bench.pools.measure("sim-0"))
    await begun.wait()
    caller.cancel()
    (measurement,) = asyncio.all_tasks() - before - {caller}
    if end == "cancel":
        measurement.cancel()
    go.set()
    await asyncio.wait([caller, measurement])
    del caller, measurement
    await asyncio.sleep(0)
    gc.collect()
    assert not told


async def test_a_pool_that_cannot_be_measured_is_viewed_without_figures_unless_it_starts() -> None:
    bench = Bench()
    bench.source.error = Unavailable("no answer", ErrorReason.WORKER_RESTARTING)
    assert (await bench.pools.view("sim-0")).measure.used_bytes is None
    bench.source.error = Unavailable("it starts", ErrorReason.STARTING)
    with pytest.raises(Unavailable) as caught:
        await bench.pools.view("sim-0")
    assert caught.value.reason is ErrorReason.STARTING


async def test_only_so_many_reservations_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    monkeypatch.setattr(reservations, "MAX_HELD", 2)
    kept = [(await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=1))).reservation for _ in range(2)]
    with pytest.raises(ResourceExhausted) as caught:
        await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=1))
    assert caught.value.reason is ErrorReason.QUOTA_EXCEEDED
    bench.reservations.delete(kept[0].id)
    await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=1))


async def test_a_caller_that_leaves_the_line_is_cancelled() -> None:
    bench = Bench(10)
    await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=10))
    caller = asyncio.create_task(bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=5, wait_s=60)))
    for _ in range(20):
        await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_reservation_pays_only_in_its_own_pool_and_nothing_is_admitted_for_nothing() -> None:
    bench = Bench(100)
    bench.pools.add(ScriptedPool(100, "sim-1"))
    admission = Admission(bench.pools, bench.reservations)
    kept = (await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=10))).reservation
    with pytest.raises(InvalidRequest, match="is in pool sim-0, not in sim-1"):
        await admission.admit("sim-1", 10, kept.id, "job-1")
    bench.source.others = 150
    (await admission.admit("sim-0", 0, "", "job-2")).close()
    (await admission.admit("sim-0", 10, kept.id, "job-3")).close()


async def test_shared_memory_is_read_at_its_offset_and_closed_with_its_blob() -> None:
    view = View()
    held = mapped_tier.MappedBytes(mapped_tier.BlobRoots([]))
    for offset in (0, 3):
        blob = Blob(
            id="it",
            sha256="",
            size_bytes=2,
            media_type="",
            create_time_s=0.0,
            tier=BlobTier.MAPPED,
            backing=SharedMemorySegment(name="deviceops-x", offset_bytes=offset),
        )
        held.note("it", view)
        assert held.stamp("it") is None
        shared = await held.open(blob)
        assert await shared.read(1, 2, bytes) == b"01234567"[offset + 1 : offset + 3]
        shared.close()
        held.check(blob)
    assert view.closed == 0
    held.free(blob)
    assert view.closed == 1


async def test_a_file_that_shrank_below_the_end_of_its_range_is_lost(blobs: BlobStore, path: Path) -> None:
    backing = MappedFile(path=str(path), offset_bytes=4)
    await blobs.requests.register(Registration(backing=backing, blob_id="it", size_bytes=3))
    os.truncate(path, 7)
    assert await content(blobs, "it") == b"456"
    os.truncate(path, 6)
    with pytest.raises(FailedPrecondition, match="has only 6 bytes now"):
        await content(blobs, "it")


async def test_work_that_fails_after_its_caller_has_left_is_told_to_nobody() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    goes_on = asyncio.Event()

    async def work() -> None:
        await goes_on.wait()
        raise OSError("the disk says no")

    caller = asyncio.create_task(to_end(work()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    del caller
    gc.collect()
    assert told == []
