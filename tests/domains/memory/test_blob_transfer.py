"""A transfer copies every byte or leaves nothing; a move deletes the source only after the copy was read back."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, InvalidRequest
from domains.memory.blobs import device_memory
from domains.memory.blobs import transfer as blob_transfer
from domains.memory.blobs.blob import BlobOrigin, BlobSpec, BlobState, BlobTier
from domains.memory.blobs.store import BlobStore
from domains.memory.blobs.transfer import transfer
from domains.memory.blobs.transfer_request import ExistingBlob, NewBlob, TransferReport, TransferRequest
from tests.domains.memory.blobs import MIB, content, files, opened, some_bytes, uploaded
from tests.domains.memory.test_blob_devices import Worker

DATA = some_bytes(3 * MIB + 11)


async def run(store: BlobStore, asked: TransferRequest, *, stop_after: int | None = None) -> TransferReport | None:
    """To its end, or until so many bytes are done."""
    done = 0

    def note(now: int, total: int) -> None:
        nonlocal done
        assert done < now <= total
        done = now

    return await transfer(
        store, asked, progress=note, should_stop=lambda: stop_after is not None and done >= stop_after
    )


@pytest.mark.parametrize("source", [BlobTier.DISK, BlobTier.HOST, BlobTier.DEVICE])
@pytest.mark.parametrize("target", [BlobTier.DISK, BlobTier.HOST, BlobTier.DEVICE])
async def test_bytes_go_from_every_tier_to_every_tier(tmp_path: Path, source: BlobTier, target: BlobTier) -> None:
    with opened(tmp_path, device_memory=Worker()) as store:
        device = {BlobTier.DEVICE: "cpu"}
        blob = await uploaded(store, DATA, source, device.get(source, ""))
        asked = TransferRequest(blob_id=blob.id, destination=NewBlob(tier=target, device_id=device.get(target, "")))
        report = await run(store, asked)
        assert report is not None
        assert (report.transferred_bytes, report.verified, report.source_deleted) == (len(DATA), True, False)
        assert (report.blob.origin, report.blob.state) == (BlobOrigin.TRANSFER, BlobState.READY)
        assert report.blob.sha256 == blob.sha256
        assert await content(store, report.blob.id) == DATA == await content(store, blob.id)


async def test_a_part_goes_where_a_blob_is_being_written(blobs: BlobStore) -> None:
    source = await uploaded(blobs, DATA)
    target = await blobs.requests.create(BlobSpec(size_bytes=4 + 2 * MIB, tier=BlobTier.HOST))
    await blobs.write_chunk(target.id, 0, b"head")
    asked = TransferRequest(
        blob_id=source.id,
        destination=ExistingBlob(blob_id=target.id, offset_bytes=4),
        offset_bytes=100,
        length_bytes=2 * MIB,
    )
    report = await run(blobs, asked)
    assert report is not None
    assert report.blob.state is BlobState.READY
    assert await content(blobs, target.id) == b"head" + DATA[100 : 100 + 2 * MIB]


@pytest.mark.parametrize("after", [0, MIB, 3 * MIB + 11])
async def test_a_stop_leaves_the_source_and_nothing_new(blobs: BlobStore, after: int) -> None:
    source = await uploaded(blobs, DATA)
    asked = TransferRequest(blob_id=source.id, destination=NewBlob(), move=True)
    assert await run(blobs, asked, stop_after=after) is None
    assert [blob.id for blob in blobs.all()] == [source.id]
    assert files(blobs) == [source.id]
    assert await content(blobs, source.id) == DATA
    assert blobs.get(source.id).reader_count == 0


async def test_a_stop_takes_back_what_went_into_another_blob(blobs: BlobStore) -> None:
    source = await uploaded(blobs, DATA)
    target = await blobs.requests.create(BlobSpec(size_bytes=len(DATA)))
    await blobs.write_chunk(target.id, 0, DATA[:5])
    destination = ExistingBlob(blob_id=target.id, offset_bytes=5)
    asked = TransferRequest(blob_id=source.id, destination=destination, offset_bytes=5)
    assert await run(blobs, asked, stop_after=2 * MIB) is None
    assert blobs.get(target.id).written_bytes == 5
    for offset in range(5, len(DATA), MIB):
        await blobs.write_chunk(target.id, offset, DATA[offset : offset + MIB])
    assert await content(blobs, target.id) == DATA


@pytest.mark.parametrize("tier", [BlobTier.HOST, BlobTier.DEVICE])
async def test_a_stop_is_heard_while_the_copy_is_verified(
    tmp_path: Path, tier: BlobTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_memory, "HASH_PIECE_BYTES", MIB)
    with opened(tmp_path, device_memory=Worker()) as store:
        source = await uploaded(store, DATA)
        device = "cpu" if tier is BlobTier.DEVICE else ""
        asked = TransferRequest(blob_id=source.id, destination=NewBlob(tier=tier, device_id=device))
        looks = 0

        def stop() -> bool:
            nonlocal looks
            looks += 1
            # Four for the pieces of the copy, then before the second piece that is read back.
            return looks == 6

        assert await transfer(store, asked, progress=lambda done, total: None, should_stop=stop) is None
        assert (looks, [blob.id for blob in store.all()]) == (6, [source.id])
        await store.freed()


@pytest.mark.parametrize(("verify", "last"), [(True, 9), (False, 5)])
async def test_the_last_look_for_a_stop_is_before_the_copy_is_ready(blobs: BlobStore, verify: bool, last: int) -> None:
    source = await uploaded(blobs, DATA)
    asked = TransferRequest(blob_id=source.id, destination=NewBlob(tier=BlobTier.HOST), verify=verify)
    looks = 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        return looks == last

    assert await transfer(blobs, asked, progress=lambda done, total: None, should_stop=stop) is None
    assert [blob.id for blob in blobs.all()] == [source.id]
    report = await run(blobs, asked)
    assert report is not None
    assert (report.verified, report.verify_s is None) == (verify, not verify)


@pytest.mark.parametrize(("took_s", "rate"), [(2.0, 2.0), (1e-6, None), (2e-6, 4 / 2e-6)])
async def test_a_transfer_tells_how_long_it_took_and_a_rate_where_that_was_measurable(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, took_s: float, rate: float | None
) -> None:
    times = iter([0.0, took_s, 100.0, 103.0])
    monkeypatch.setattr(blob_transfer, "time", SimpleNamespace(monotonic=lambda: next(times)))
    source = await uploaded(blobs, b"data")
    report = await run(blobs, TransferRequest(blob_id=source.id, destination=NewBlob()))
    assert report is not None
    assert (report.copy_s, report.bytes_per_second, report.verify_s) == (took_s, rate, 3.0)


async def test_a_cancelled_task_leaves_nothing_new(blobs: BlobStore) -> None:
    source = await uploaded(blobs, DATA)
    moved = asyncio.Event()
    asked = TransferRequest(blob_id=source.id, destination=NewBlob())
    task = asyncio.create_task(
        transfer(blobs, asked, progress=lambda done, total: moved.set(), should_stop=lambda: False)
    )
    await moved.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [blob.id for blob in blobs.all()] == [source.id]
    assert files(blobs) == [source.id]


async def test_a_copy_that_reads_back_otherwise_is_taken_back(tmp_path: Path) -> None:
    worker = Worker()
    with opened(tmp_path, device_memory=worker) as store:
        source = await uploaded(store, DATA)

        def harm(done: int, total: int) -> None:
            if done == total:
                (copy,) = worker.blobs.owners()
                worker.blobs.view(copy.id)[0] ^= 1

        asked = TransferRequest(
            blob_id=source.id, destination=NewBlob(tier=BlobTier.DEVICE, device_id="cpu"), move=True
        )
        with pytest.raises(DataLoss) as told:
            await transfer(store, asked, progress=harm, should_stop=lambda: False)
        assert told.value.reason is ErrorReason.BLOB_CORRUPT
        await store.freed()
        assert worker.blobs.owners() == ()
        assert [blob.state for blob in store.all()] == [BlobState.READY]
        assert await content(store, source.id) == DATA


async def test_a_damaged_source_is_found_before_a_move_deletes_it(blobs: BlobStore) -> None:
    source = await uploaded(blobs, DATA)
    blobs.files.write_at(source.id, 0, b"damage")
    asked = TransferRequest(blob_id=source.id, destination=NewBlob(tier=BlobTier.HOST), move=True)
    with pytest.raises(DataLoss):
        await run(blobs, asked)
    assert [(blob.id, blob.state) for blob in blobs.all()] == [(source.id, BlobState.CORRUPT)]


async def test_no_bytes_are_an_empty_blob(blobs: BlobStore) -> None:
    source = await uploaded(blobs, b"")
    source = source if source.size_bytes else await blobs.requests.create(BlobSpec(size_bytes=0))
    report = await run(blobs, TransferRequest(blob_id=source.id, destination=NewBlob(tier=BlobTier.HOST)))
    assert report is not None
    assert (report.blob.state, report.transferred_bytes) == (BlobState.READY, 0)


async def test_what_cannot_be_is_refused_before_it_starts(blobs: BlobStore) -> None:
    source = await uploaded(blobs, b"0123456789")
    half = await blobs.requests.create(BlobSpec(size_bytes=4))

    async def wrong(asked: TransferRequest) -> set[str]:
        with pytest.raises(InvalidRequest) as told:
            await run(blobs, asked)
        return {violation.field for violation in told.value.violations}

    there = NewBlob(tier=BlobTier.HOST)
    request = TransferRequest
    assert await wrong(request(blob_id=source.id, destination=there, offset_bytes=11)) >= {"offset_bytes"}
    assert await wrong(request(blob_id=source.id, destination=there, length_bytes=11)) == {"length_bytes"}
    assert await wrong(request(blob_id=source.id, destination=there, length_bytes=3, move=True)) == {"move"}
    assert await wrong(request(blob_id=source.id, destination=there, move=True, verify=False)) == {"verify"}
    assert await wrong(request(blob_id=source.id, destination=NewBlob(tier=BlobTier.MAPPED))) == {"new_blob.tier"}
    assert await wrong(request(blob_id=source.id, destination=NewBlob(device_id="cpu"))) == {"new_blob.device_id"}
    place = {"existing_blob.offset_bytes"}
    assert await wrong(request(blob_id=source.id, destination=ExistingBlob(blob_id=half.id))) == place
    gap = ExistingBlob(blob_id=half.id, offset_bytes=1)
    assert await wrong(request(blob_id=source.id, destination=gap, length_bytes=1)) == place
    for asked in (
        request(blob_id=half.id, destination=there),
        request(blob_id=source.id, destination=ExistingBlob(blob_id=source.id)),
    ):
        with pytest.raises(FailedPrecondition) as told:
            await run(blobs, asked)
        assert told.value.reason is ErrorReason.ILLEGAL_STATE


async def test_a_crash_during_a_transfer_leaves_nothing_new(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        source = await uploaded(store, DATA)
        await store.create_for_transfer(BlobSpec(size_bytes=10))
    with opened(tmp_path) as store:
        store.sweep(lambda owner: True)
        assert [blob.id for blob in store.all()] == [source.id]
        assert files(store) == [source.id]
