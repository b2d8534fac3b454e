"""Bytes come into a blob in order, once, and are what was announced; what was written survives."""

import sys
import time
from pathlib import Path
from typing import Any

import google_crc32c
import msgspec
import psutil
import pytest

from domains.errors import (
    AlreadyExists,
    DataLoss,
    ErrorReason,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
)
from domains.memory.blobs.blob import Blob, BlobSpec, BlobState, BlobTier, MappedFile
from domains.memory.blobs.host_memory import address_of, aligned_pages
from domains.memory.blobs.quotas import BlobLimits
from domains.memory.blobs.registration_request import Registration
from domains.memory.blobs.rows import BlobRows
from domains.memory.blobs.store import BlobStore
from domains.requests import Asked
from tests.domains.memory.blobs import MIB, content, files, opened, sha, some_bytes, uploaded

TIERS = [BlobTier.DISK, BlobTier.HOST]


@pytest.mark.parametrize("tier", TIERS)
async def test_what_was_written_is_read(blobs: BlobStore, tier: BlobTier) -> None:
    data = some_bytes(2 * MIB + 77)
    blob = await uploaded(blobs, data, tier)
    assert (blob.state, blob.sha256, blob.tier) == (BlobState.READY, sha(data), tier)
    assert blob.written_bytes == blob.size_bytes == len(data)
    assert await content(blobs, blob.id) == data


async def test_it_cannot_be_read_before_its_last_byte(blobs: BlobStore) -> None:
    blob = await blobs.requests.create(BlobSpec(size_bytes=10))
    half = await blobs.write_chunk(blob.id, 0, b"01234")
    assert (half.state, half.written_bytes, half.sha256) == (BlobState.WRITING, 5, "")
    with pytest.raises(FailedPrecondition) as told:
        await content(blobs, blob.id)
    assert told.value.reason is ErrorReason.ILLEGAL_STATE
    assert told.value.facts["written_bytes"] == "5"


async def test_a_gap_is_refused_with_the_place_to_go_on(blobs: BlobStore) -> None:
    blob = await blobs.requests.create(BlobSpec(size_bytes=10))
    await blobs.write_chunk(blob.id, 0, b"012")
    with pytest.raises(InvalidRequest) as told:
        await blobs.write_chunk(blob.id, 4, b"4")
    assert told.value.facts["written_bytes"] == "3"
    with pytest.raises(InvalidRequest, match="beyond"):
        await blobs.write_chunk(blob.id, 3, b"3456789A")
    assert blobs.get(blob.id).written_bytes == 3


async def test_a_repeated_chunk_changes_nothing_and_an_overlapping_one_adds_its_end(blobs: BlobStore) -> None:
    blob = await blobs.requests.create(BlobSpec(size_bytes=6))
    await blobs.write_chunk(blob.id, 0, b"abc")
    assert (await blobs.write_chunk(blob.id, 0, b"abc")).written_bytes == 3
    assert (await blobs.write_chunk(blob.id, 1, b"XYd")).written_bytes == 4
    await blobs.write_chunk(blob.id, 4, b"ef")
    assert await content(blobs, blob.id) == b"abcdef"


async def test_the_last_chunk_may_be_repeated_but_a_complete_blob_never_changes(blobs: BlobStore) -> None:
    blob = await uploaded(blobs, b"abcdef")
    assert (await blobs.write_chunk(blob.id, 3, b"def")).state is BlobState.READY
    with pytest.raises(FailedPrecondition) as told:
        await blobs.write_chunk(blob.id, 3, b"xyz")
    assert told.value.reason is ErrorReason.ILLEGAL_STATE
    assert await content(blobs, blob.id) == b"abcdef"


async def test_a_complete_blob_is_ready_only_for_what_it_has_already(blobs: BlobStore) -> None:
    blob = await uploaded(blobs, b"abcd")
    for offset, data in ((0, b"abcd"), (3, b"d"), (1, b"bc")):
        assert (await blobs.write_chunk(blob.id, offset, data)).state is BlobState.READY
    for offset, data in ((4, b""), (0, b""), (4, b"e"), (3, b"de"), (0, b"abcde"), (-1, b"a"), (1, b"b!")):
        with pytest.raises(FailedPrecondition) as told:
            await blobs.write_chunk(blob.id, offset, data)
        assert told.value.reason is ErrorReason.ILLEGAL_STATE
    picture = await blobs.keep(b"picture", "image/png", "job-1")
    with pytest.raises(FailedPrecondition):
        await blobs.write_chunk(picture.id, 0, b"picture")


async def test_only_what_is_being_written_is_rewound(blobs: BlobStore) -> None:
    blob = await blobs.requests.create(BlobSpec(size_bytes=4))
    with blobs.writing(blob.id) as writer:
        await writer.put(0, b"abc")
        writer.rewind(1)
        assert blobs.get(blob.id).written_bytes == 1
        await writer.write(1, b"bcd")
        writer.rewind(1)
        assert (blobs.get(blob.id).state, blobs.get(blob.id).written_bytes) == (BlobState.READY, 4)
    assert await content(blobs, blob.id) == b"abcd"
    other = await blobs.requests.create(BlobSpec(size_bytes=4))
    with blobs.writing(other.id) as writer:
        blobs._rows.remove([other.id])  # pyright: ignore[reportPrivateUsage]  # as an end of its session does
        writer.rewind(0)
        with pytest.raises(NotFound):
            blobs.get(other.id)


async def test_a_wrong_checksum_writes_nothing(blobs: BlobStore) -> None:
    blob = await blobs.requests.create(BlobSpec(size_bytes=3))
    with pytest.raises(DataLoss) as told:
        await blobs.write_chunk(blob.id, 0, b"abc", crc32c=google_crc32c.value(b"abd"))
    assert told.value.reason is ErrorReason.BLOB_CORRUPT
    assert blobs.get(blob.id).written_bytes == 0
    assert (await blobs.write_chunk(blob.id, 0, b"abc", google_crc32c.value(b"abc"))).state is BlobState.READY


@pytest.mark.parametrize("tier", TIERS)
async def test_other_bytes_than_announced_are_corrupt_and_gone(blobs: BlobStore, tier: BlobTier) -> None:
    blob = await blobs.requests.create(BlobSpec(size_bytes=3, sha256=sha(b"abc"), tier=tier))
    with pytest.raises(DataLoss) as told:
        await blobs.write_chunk(blob.id, 0, b"abd")
    assert told.value.reason is ErrorReason.BLOB_CORRUPT
    with pytest.raises(NotFound):
        blobs.get(blob.id)
    assert files(blobs) == []


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1])
async def test_a_filled_blob_is_ready_at_once(blobs: BlobStore, tier: BlobTier, size: int) -> None:
    blob = await blobs.requests.create(BlobSpec(size_bytes=size, tier=tier, fill_byte=0xA5))
    assert (blob.state, blob.sha256) == (BlobState.READY, sha(b"\xa5" * size))
    assert await content(blobs, blob.id) == b"\xa5" * size


@pytest.mark.parametrize("tier", TIERS)
async def test_a_filled_blob_of_another_content_than_announced_leaves_nothing(blobs: BlobStore, tier: BlobTier) -> None:
    for size, fill in ((3, 7), (0, None)):
        spec = BlobSpec(size_bytes=size, fill_byte=fill, tier=tier, sha256=sha(b"other"))
        with pytest.raises(DataLoss) as told:
            await blobs.requests.create(spec)
        assert told.value.reason is ErrorReason.BLOB_CORRUPT
        assert (blobs.all(), files(blobs)) == ([], [])
    assert (await blobs.requests.create(BlobSpec(size_bytes=3, fill_byte=7, tier=tier, sha256=sha(b"\7\7\7")))).sha256


async def test_an_empty_blob_is_ready_at_once(blobs: BlobStore) -> None:
    assert (await blobs.requests.create(BlobSpec(size_bytes=0))).state is BlobState.READY
    with pytest.raises(DataLoss):
        await blobs.requests.create(BlobSpec(size_bytes=0, sha256=sha(b"not empty")))
    assert len(blobs.all()) == 1


async def test_an_upload_goes_on_in_a_new_process(tmp_path: Path) -> None:
    data = some_bytes(3000)
    with opened(tmp_path) as store:
        blob = await store.requests.create(BlobSpec(size_bytes=3000, sha256=sha(data)))
        await store.write_chunk(blob.id, 0, data[:1000])
    with opened(tmp_path) as store:
        assert store.sweep(lambda owner: True) == 0
        written = store.get(blob.id).written_bytes
        assert written == 1000
        assert (await store.write_chunk(blob.id, written, data[written:])).state is BlobState.READY
        assert await content(store, blob.id) == data


async def test_only_the_disk_outlives_the_process(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        disk = await uploaded(store, b"disk")
        host = await uploaded(store, b"host", BlobTier.HOST)
    with opened(tmp_path) as store:
        store.sweep(lambda owner: True)
        assert await content(store, disk.id) == b"disk"
        with pytest.raises(NotFound):
            store.get(host.id)


async def test_the_same_request_makes_one_blob_also_after_a_restart(tmp_path: Path) -> None:
    spec = BlobSpec(size_bytes=5)
    five, six = Asked(request_id="request", digest="5"), Asked(request_id="request", digest="6")
    with opened(tmp_path) as store:
        first = await store.requests.create(spec, five)
        assert (await store.requests.create(spec, five)).id == first.id
        assert (await store.requests.create(spec)).id != first.id
    with opened(tmp_path) as store:
        again = store.requests.again(five)
        assert again is not None
        assert again.id == first.id
        with pytest.raises(AlreadyExists) as told:
            store.requests.again(six)
        assert told.value.reason is ErrorReason.REQUEST_ID_REUSED
        store.delete(first.id)
        assert (await store.requests.create(BlobSpec(size_bytes=6), six)).size_bytes == 6


async def test_a_repeated_request_gets_the_blob_as_it_is_now(blobs: BlobStore) -> None:
    asked = Asked(request_id="request")
    assert blobs.requests.again(asked) is None
    made = await blobs.requests.create(BlobSpec(size_bytes=0), asked)
    blobs.hold(made.id, "job")
    again = blobs.requests.again(asked)
    assert again is not None
    assert (again.id, again.reader_count) == (made.id, 1)


async def test_bytes_that_are_there_are_not_sent_again(blobs: BlobStore) -> None:
    first = await uploaded(blobs, b"weights")
    spec = BlobSpec(size_bytes=7, sha256=sha(b"weights"))
    assert (await blobs.requests.begin_upload(spec)).id == first.id
    other_tier = await blobs.requests.begin_upload(BlobSpec(size_bytes=7, sha256=sha(b"weights"), tier=BlobTier.HOST))
    assert other_tier.id != first.id


async def test_a_jobs_bytes_that_an_upload_counts_on_outlive_the_job(blobs: BlobStore) -> None:
    made = await blobs.keep(b"picture", "image/png", "job-1")
    spec = BlobSpec(size_bytes=7, sha256=sha(b"picture"), keep_for_s=60)
    assert (await blobs.requests.begin_upload(spec)).id == made.id
    blobs.release("job-1")
    assert await content(blobs, made.id) == b"picture"
    assert blobs.collect(blobs.get(made.id).create_time_s + 3600) == 1


async def test_bytes_that_are_kept_for_ever_stay_so(blobs: BlobStore) -> None:
    first = await uploaded(blobs, b"abc")
    blobs._rows.put(msgspec.structs.replace(blobs.get(first.id), expire_time_s=None))  # pyright: ignore[reportPrivateUsage]  # as older rows are
    again = await blobs.requests.begin_upload(BlobSpec(size_bytes=3, sha256=sha(b"abc"), keep_for_s=60))
    assert (again.id, again.expire_time_s) == (first.id, None)


@pytest.mark.parametrize(("keep_for_s", "later"), [(60, 3600), (7200, 7200), (None, 24 * 3600)])
async def test_bytes_that_are_there_stay_as_long_as_the_last_upload_asks(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, keep_for_s: float | None, later: float
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    first = await blobs.requests.create(BlobSpec(size_bytes=3, keep_for_s=3600))
    await blobs.write_chunk(first.id, 0, b"abc")
    again = await blobs.requests.begin_upload(BlobSpec(size_bytes=3, sha256=sha(b"abc"), keep_for_s=keep_for_s))
    assert (again.id, again.expire_time_s) == (first.id, 1e9 + later)


async def test_one_writer_at_a_time(blobs: BlobStore) -> None:
    blob = await blobs.requests.create(BlobSpec(size_bytes=4))
    with blobs.writing(blob.id) as writer:
        await writer.write(0, b"ab")
        with pytest.raises(FailedPrecondition) as told:
            await blobs.write_chunk(blob.id, 2, b"cd")
        assert told.value.reason is ErrorReason.ILLEGAL_STATE
    assert (await blobs.write_chunk(blob.id, 2, b"cd")).state is BlobState.READY


async def test_quotas_bound_what_clients_make_and_not_what_jobs_make(tmp_path: Path) -> None:
    with opened(tmp_path, limits=BlobLimits(max_count=2, max_bytes=100)) as store:
        with pytest.raises(ResourceExhausted) as told:
            await store.requests.create(BlobSpec(size_bytes=101))
        assert told.value.reason is ErrorReason.QUOTA_EXCEEDED
        await store.requests.create(BlobSpec(size_bytes=60))
        with pytest.raises(ResourceExhausted):
            await store.requests.create(BlobSpec(size_bytes=60))
        last = await store.requests.create(BlobSpec(size_bytes=1))
        with pytest.raises(ResourceExhausted):
            await store.requests.create(BlobSpec(size_bytes=1))
        await store.keep(b"picture" * 100, "image/png", "job-1")
        store.delete(last.id)
        await store.requests.create(BlobSpec(size_bytes=1))


async def test_a_registered_file_takes_no_bytes_of_the_quota_and_counts_as_one_blob(tmp_path: Path) -> None:
    with opened(tmp_path, limits=BlobLimits(max_count=2, max_bytes=4)) as store:
        await uploaded(store, b"full")
        path = tmp_path / "shared" / "file"
        path.write_bytes(b"bytes")
        asked = Registration(backing=MappedFile(path=str(path)))
        mapped = await store.requests.register(asked)
        assert mapped.place > mapped.create_time_s
        with pytest.raises(ResourceExhausted) as told:
            await store.requests.register(asked)
        assert told.value.facts["count"] == "2"
        store.delete(mapped.id)
        await store.requests.register(asked)


async def test_a_request_is_remembered_as_long_as_its_blob(tmp_path: Path) -> None:
    asked = Asked(request_id="one", scope="create", digest="d")
    with opened(tmp_path) as store:
        made = await store.requests.create(BlobSpec(size_bytes=1), asked)
        assert store._rows.request(asked.key) is not None  # pyright: ignore[reportPrivateUsage]
    with opened(tmp_path) as store:
        assert store._rows.request(asked.key) is not None  # pyright: ignore[reportPrivateUsage]
        store.delete(made.id)
        assert store._rows.request(asked.key) is None  # pyright: ignore[reportPrivateUsage]
    with opened(tmp_path) as store:
        assert store._rows.request(asked.key) is None  # pyright: ignore[reportPrivateUsage]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count pages otherwise")
async def test_pages_of_a_blob_are_taken_from_the_system_at_once(blobs: BlobStore) -> None:
    process, size = psutil.Process(), 32 * MIB
    before = process.memory_info().rss
    blob = await blobs.requests.create(BlobSpec(size_bytes=size, tier=BlobTier.HOST))
    assert process.memory_info().rss - before > 0.9 * size
    blobs.delete(blob.id)
    assert process.memory_info().rss - before < 0.1 * size


async def test_what_no_disk_and_no_memory_can_hold_is_refused_and_leaves_nothing(blobs: BlobStore) -> None:
    for tier, reason in ((BlobTier.DISK, ErrorReason.STORAGE_FULL), (BlobTier.HOST, ErrorReason.HOST_OUT_OF_MEMORY)):
        with pytest.raises(ResourceExhausted) as told:
            await blobs.requests.create(BlobSpec(size_bytes=1 << 60, tier=tier))
        assert told.value.reason is reason
        assert told.value.facts["needed_bytes"] == str(1 << 60)
        assert int(told.value.facts["available_bytes"]) > 0
    assert blobs.all() == []
    assert files(blobs) == []


async def test_everything_that_is_wrong_with_a_spec_is_told_at_once(blobs: BlobStore) -> None:
    spec = BlobSpec(
        size_bytes=-1, tier=BlobTier.DEVICE, alignment_bytes=3, fill_byte=256, keep_for_s=-1.0, sha256="ABC"
    )
    with pytest.raises(InvalidRequest) as told:
        await blobs.requests.create(spec)
    fields = {violation.field.removeprefix("blob_spec.") for violation in told.value.violations}
    assert fields == {"size_bytes", "device_id", "alignment_bytes", "fill_byte", "keep_for", "sha256"}


async def test_without_a_device_that_holds_blobs_its_tiers_are_not_supported(blobs: BlobStore) -> None:
    from domains.errors import NotSupported

    with pytest.raises(NotSupported) as told:
        await blobs.requests.create(BlobSpec(size_bytes=1, tier=BlobTier.DEVICE, device_id="cuda:0"))
    assert told.value.reason is ErrorReason.NOT_SUPPORTED_ON_DEVICE


async def test_sessions_and_reservations_that_are_not_there_are_refused(blobs: BlobStore) -> None:
    with pytest.raises(NotFound) as told:
        await blobs.requests.create(BlobSpec(size_bytes=1, session_id="s"))
    assert told.value.reason is ErrorReason.SESSION_NOT_FOUND
    with pytest.raises(NotFound) as told:
        await blobs.requests.create(BlobSpec(size_bytes=1, reservation_id="r"))
    assert told.value.reason is ErrorReason.RESERVATION_NOT_FOUND


@pytest.mark.parametrize("alignment", [1, 64, 4096, 65536, 2 * MIB])
def test_host_memory_begins_where_it_was_asked_to(alignment: int) -> None:
    pages = aligned_pages(1000, alignment)
    assert address_of(pages) % alignment == 0
    assert bytes(pages) == bytes(1000)


async def test_a_blob_whose_last_bytes_came_by_a_transfer_that_died_is_finished_by_any_chunk(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        blob = await store.requests.create(BlobSpec(size_bytes=4))
        with store.writing(blob.id) as writer:
            await writer.put(0, b"abcd")
    with opened(tmp_path) as store:
        assert store.get(blob.id).state is BlobState.WRITING
        assert (await store.write_chunk(blob.id, 2, b"cd")).state is BlobState.READY


async def test_the_last_bytes_and_ready_are_one_write(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[int, BlobState]] = []
    put = BlobRows.put

    def noted(self: BlobRows, blob: Blob, **more: Any) -> Blob:
        rows.append((blob.missing_bytes, blob.state))
        return put(self, blob, **more)

    blob = await blobs.requests.create(BlobSpec(size_bytes=4))
    monkeypatch.setattr(BlobRows, "put", noted)
    await blobs.write_chunk(blob.id, 0, b"ab")
    await blobs.write_chunk(blob.id, 2, b"cd")
    assert rows == [(2, BlobState.WRITING), (0, BlobState.READY)]


@pytest.mark.parametrize("request_id", ["two words", "x" * 65, "\u00fc"])
async def test_a_request_id_that_no_other_call_would_take_is_refused(blobs: BlobStore, request_id: str) -> None:
    shared = Registration(backing=MappedFile(path="/dev/shm/x"))
    for call in (
        lambda: blobs.requests.create(BlobSpec(size_bytes=1), Asked(request_id=request_id)),
        lambda: blobs.requests.begin_upload(BlobSpec(size_bytes=1), Asked(request_id=request_id)),
        lambda: blobs.requests.register(shared, Asked(request_id=request_id)),
    ):
        with pytest.raises(InvalidRequest) as told:
            await call()
        assert [violation.field for violation in told.value.violations] == ["request_id"]
    assert blobs.all() == []
