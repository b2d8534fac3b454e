"""Each check that refuses something lets in what is just within its limits and nothing beyond."""

import asyncio
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import google_crc32c
import msgspec
import pytest

from domains.errors import (
    Aborted,
    DataLoss,
    DeviceOpsError,
    ErrorReason,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
)
from domains.memory.blobs import uploads
from domains.memory.blobs.access import check_readable
from domains.memory.blobs.blob import Blob, BlobSpec, BlobState, BlobTier, MappedFile, SharedMemorySegment
from domains.memory.blobs.creation import check_spec
from domains.memory.blobs.quotas import BlobLimits
from domains.memory.blobs.registration_request import Registration, check_registration
from domains.memory.blobs.store import BlobStore
from domains.memory.blobs.transfer_request import ExistingBlob, NewBlob, TransferRequest, check_transfer
from domains.memory.pools.admission import Admission
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.reclaim import ReclaimAsk
from domains.memory.pools.reservation import ReservationAsk
from tests.domains.memory.blobs import content, opened, uploaded
from tests.domains.memory.scripted_pool import Bench

TEN_YEARS_S = 10 * 365 * 86400
HASH = "0123456789abcdef" * 4
SPEC = BlobSpec(size_bytes=8)
FILE = Registration(backing=MappedFile(path="/f"))
SEGMENT = Registration(backing=SharedMemorySegment(name="deviceops-x"), size_bytes=1)

SPECS: list[tuple[dict[str, Any], str]] = [
    ({"size_bytes": 0}, ""),
    ({"size_bytes": -1}, "size_bytes"),
    ({"tier": BlobTier.MAPPED}, "tier"),
    ({"tier": BlobTier.MAPPED, "device_id": "gpu"}, "tier"),
    ({"tier": BlobTier.DEVICE, "device_id": "gpu"}, ""),
    ({"tier": BlobTier.DEVICE}, "device_id"),
    ({"tier": BlobTier.PINNED_HOST}, "device_id"),
    ({"tier": BlobTier.HOST, "device_id": "gpu"}, "device_id"),
    *(({"alignment_bytes": good}, "") for good in (0, 1, 2, 4096, 2097152)),
    *(({"alignment_bytes": bad}, "alignment_bytes") for bad in (-1, 3, 6, 2097151, 4194304)),
    *(({"fill_byte": good}, "") for good in (0, 255)),
    *(({"fill_byte": bad}, "fill_byte") for bad in (-1, 256)),
    *(({"keep_for_s": good}, "") for good in (0.001, 1.0, TEN_YEARS_S - 1)),
    *(({"keep_for_s": bad}, "keep_for") for bad in (0.0, -1.0, TEN_YEARS_S)),
    ({"sha256": HASH}, ""),
    *(({"sha256": bad}, "sha256") for bad in (HASH[1:], HASH + "0", HASH[1:] + "A", HASH[1:] + "g")),
    ({"labels": (("", "x"),)}, "labels"),
]
REGISTRATIONS: list[tuple[Registration, dict[str, Any], str]] = [
    *((FILE, {"blob_id": good}, "") for good in ("a", "b", "x" * 63, "a-0_.z")),
    *((FILE, {"blob_id": bad}, "blob_id") for bad in ("b-1", "A", "x" * 64, "a/b", " ", "é")),
    *((FILE, {"backing": MappedFile(path="/f", offset_bytes=good)}, "") for good in (0, 1)),
    (FILE, {"backing": MappedFile(path="/f", offset_bytes=-1)}, "file.offset_bytes"),
    *((FILE, {"size_bytes": good}, "") for good in (None, 0, 1)),
    (FILE, {"size_bytes": -1}, "size_bytes"),
    (FILE, {"sha256": HASH}, ""),
    (FILE, {"sha256": HASH.upper()}, "sha256"),
    *((FILE, {"generation": good}, "") for good in (0, 1)),
    (FILE, {"generation": -1}, "generation"),
    *((FILE, {"keep_for_s": good}, "") for good in (0.001, 1.0, TEN_YEARS_S - 1)),
    *((FILE, {"keep_for_s": bad}, "keep_for") for bad in (0.0, TEN_YEARS_S)),
    (FILE, {"labels": (("", "x"),)}, "labels"),
    (SEGMENT, {}, ""),
    (SEGMENT, {"size_bytes": None}, "size_bytes"),
    (SEGMENT, {"backing": SharedMemorySegment(name="deviceops-x", offset_bytes=-1)}, "shared_memory.offset_bytes"),
    (SEGMENT, {"backing": SharedMemorySegment(name="Local\\other")}, "shared_memory.name"),
]


def fields_of(call: Callable[[], object]) -> list[str]:
    """The last parts of the refused fields. Empty: it was let in."""
    try:
        call()
    except InvalidRequest as error:
        return [violation.field.removeprefix("blob_spec.") for violation in error.violations]
    return []


@pytest.mark.parametrize(("changes", "field"), SPECS)
def test_a_new_blob(changes: dict[str, Any], field: str) -> None:
    assert fields_of(lambda: check_spec(msgspec.structs.replace(SPEC, **changes))) == ([field] if field else [])


@pytest.mark.parametrize(("plain", "changes", "field"), REGISTRATIONS)
def test_a_registration(plain: Registration, changes: dict[str, Any], field: str) -> None:
    asked = msgspec.structs.replace(plain, **changes)
    assert fields_of(lambda: check_registration(asked)) == ([field] if field else [])


def test_everything_that_is_wrong_is_told_at_once() -> None:
    spec = msgspec.structs.replace(SPEC, size_bytes=-1, fill_byte=256, sha256="x")
    assert fields_of(lambda: check_spec(spec)) == ["size_bytes", "fill_byte", "sha256"]
    asked = msgspec.structs.replace(FILE, generation=-1, blob_id="b-1")
    assert fields_of(lambda: check_registration(asked)) == ["blob_id", "generation"]


def state(state: BlobState, tier: BlobTier = BlobTier.DISK) -> Blob:
    return Blob(id="it", sha256="", size_bytes=1, media_type="", create_time_s=0.0, state=state, tier=tier)


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (state(BlobState.READY), None),
        (state(BlobState.WRITING), ErrorReason.ILLEGAL_STATE),
        (state(BlobState.DELETING), ErrorReason.ILLEGAL_STATE),
        (state(BlobState.CORRUPT), ErrorReason.BLOB_CORRUPT),
        (state(BlobState.LOST, BlobTier.MAPPED), ErrorReason.ILLEGAL_STATE),
        (state(BlobState.LOST, BlobTier.DEVICE), ErrorReason.DEVICE_LOST),
        (state(BlobState.LOST, BlobTier.PINNED_HOST), ErrorReason.DEVICE_LOST),
    ],
)
def test_only_a_ready_blob_is_read(blob: Blob, reason: ErrorReason | None) -> None:
    with nullcontext() if reason is None else pytest.raises(DeviceOpsError, match=rf"^{reason}: "):
        check_readable(blob)


async def test_a_blob_that_is_being_deleted_is_read_by_those_who_hold_it_alone(blobs: BlobStore) -> None:
    blob = await uploaded(blobs, b"0123")
    blobs.hold(blob.id, "job-1")
    blobs.delete(blob.id)
    for owner in ("", "job-2"):
        with pytest.raises(FailedPrecondition):
            async with blobs.reading(blob.id, owner):
                raise AssertionError("it was let in")
    async with blobs.reading(blob.id, "job-1") as reader:
        assert await reader.read(0, 4, bytes) == b"0123"


async def test_only_a_blob_that_is_being_written_is_written(blobs: BlobStore) -> None:
    blob = await uploaded(blobs, b"0123")
    with pytest.raises(FailedPrecondition, match="only one that is writing"), blobs.writing(blob.id):
        raise AssertionError("it was let in")
    with pytest.raises(NotFound), blobs.writing("absent"):
        raise AssertionError("it was let in")
    with pytest.raises(FailedPrecondition):
        blobs.hold((await blobs.requests.create(SPEC)).id, "job-1")


@pytest.mark.parametrize(
    ("offset", "size", "field"),
    [
        (0, 4, ""),
        (4, 4, ""),
        (3, 5, ""),
        (5, 1, "chunk.offset_bytes"),
        (-1, 4, "chunk.offset_bytes"),
        (4, 5, "chunk.data"),
        (0, 9, "chunk.data"),
    ],
)
async def test_a_chunk_goes_where_the_last_one_ended_and_not_beyond(
    blobs: BlobStore, offset: int, size: int, field: str
) -> None:
    blob = await blobs.requests.create(SPEC)
    await blobs.write_chunk(blob.id, 0, b"0123")
    if not field:
        assert (await blobs.write_chunk(blob.id, offset, b"x" * size)).written_bytes >= 4
        return
    with pytest.raises(InvalidRequest) as caught:
        await blobs.write_chunk(blob.id, offset, b"x" * size)
    assert [each.field for each in caught.value.violations] == [field]


async def test_a_chunk_is_as_large_as_a_message_at_most(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_CHUNK_BYTES", 4)
    blob = await blobs.requests.create(SPEC)
    with pytest.raises(ResourceExhausted) as caught:
        await blobs.write_chunk(blob.id, 0, b"01234")
    assert caught.value.reason is ErrorReason.MESSAGE_TOO_LARGE
    assert (await blobs.write_chunk(blob.id, 0, b"0123")).written_bytes == 4


@pytest.mark.parametrize("checksum", [-1, 1 << 32])
async def test_a_checksum_has_32_bits(blobs: BlobStore, checksum: int) -> None:
    blob = await blobs.requests.create(SPEC)
    with pytest.raises(InvalidRequest) as caught:
        await blobs.write_chunk(blob.id, 0, b"0123", checksum)
    assert [each.field for each in caught.value.violations] == ["chunk.crc32c"]


async def test_a_chunk_with_another_checksum_writes_nothing(blobs: BlobStore) -> None:
    blob = await blobs.requests.create(SPEC)
    for wrong in (0, 0xFFFFFFFF):
        with pytest.raises(DataLoss) as caught:
            await blobs.write_chunk(blob.id, 0, b"0123", wrong)
        assert caught.value.reason is ErrorReason.BLOB_CORRUPT
    assert blobs.get(blob.id).written_bytes == 0
    assert (await blobs.write_chunk(blob.id, 0, b"0123", google_crc32c.value(b"0123"))).written_bytes == 4


async def test_a_copy_lies_inside_its_source_and_its_target(blobs: BlobStore) -> None:
    source, target = await uploaded(blobs, b"01234567"), await blobs.requests.create(SPEC)
    await blobs.write_chunk(target.id, 0, b"01")

    def refused(destination: NewBlob | ExistingBlob | None = None, **fields: Any) -> list[str]:
        asked = TransferRequest(blob_id=source.id, destination=destination or NewBlob(), **fields)
        return fields_of(lambda: check_transfer(blobs, asked))

    assert refused() == refused(offset_bytes=8) == refused(offset_bytes=3, length_bytes=5) == []
    assert refused(length_bytes=8) == refused(move=True) == []
    assert refused(move=True, length_bytes=8) == []
    assert refused(offset_bytes=9) == ["offset_bytes"]
    assert refused(offset_bytes=-1) == ["offset_bytes"]
    assert refused(length_bytes=-1) == ["length_bytes"]
    assert refused(length_bytes=9) == ["length_bytes"]
    assert refused(offset_bytes=3, length_bytes=6) == ["length_bytes"]
    assert refused(move=True, offset_bytes=1) == ["move"]
    assert refused(move=True, length_bytes=7) == ["move"]
    assert refused(move=True, verify=False) == ["verify"]
    assert refused(verify=False) == []
    assert refused(NewBlob(tier=BlobTier.MAPPED)) == ["new_blob.tier"]
    assert refused(NewBlob(tier=BlobTier.DEVICE)) == ["new_blob.device_id"]
    assert refused(NewBlob(tier=BlobTier.HOST, device_id="gpu")) == ["new_blob.device_id"]
    assert refused(NewBlob(tier=BlobTier.DEVICE, device_id="gpu")) == []
    assert refused(ExistingBlob(blob_id=target.id)) == []
    assert refused(ExistingBlob(blob_id=target.id, offset_bytes=2), length_bytes=6) == []
    assert refused(ExistingBlob(blob_id=target.id, offset_bytes=2), length_bytes=7) == ["existing_blob.offset_bytes"]
    assert refused(ExistingBlob(blob_id=target.id, offset_bytes=3), length_bytes=1) == ["existing_blob.offset_bytes"]
    assert refused(ExistingBlob(blob_id=target.id, offset_bytes=-1)) == ["existing_blob.offset_bytes"]
    assert refused(NewBlob(tier=BlobTier.MAPPED), offset_bytes=9, move=True) == [
        "offset_bytes",
        "move",
        "new_blob.tier",
    ]
    with pytest.raises(FailedPrecondition):
        refused(ExistingBlob(blob_id=source.id))


async def test_a_copy_needs_a_ready_source_or_one_that_its_job_holds(blobs: BlobStore) -> None:
    writing, held = await blobs.requests.create(SPEC), await uploaded(blobs, b"0123")
    with pytest.raises(FailedPrecondition, match="only one that is ready"):
        check_transfer(blobs, TransferRequest(blob_id=writing.id, destination=NewBlob()), "job-1")
    blobs.hold(held.id, "job-1")
    blobs.delete(held.id)
    asked = TransferRequest(blob_id=held.id, destination=NewBlob())
    assert check_transfer(blobs, asked, "job-1") == 4
    with pytest.raises(FailedPrecondition):
        check_transfer(blobs, asked, "job-2")


@pytest.mark.parametrize(("limit", "refused"), [({"max_count": 2}, True), ({"max_count": 3}, False)])
async def test_as_many_blobs_as_are_allowed(tmp_path: Path, limit: dict[str, int], refused: bool) -> None:
    await _three_of_four_bytes(tmp_path, BlobLimits(**limit), refused)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("limit", "refused"), [({"max_bytes": 11}, True), ({"max_bytes": 12}, False)])
async def test_as_many_bytes_as_are_allowed(tmp_path: Path, limit: dict[str, int], refused: bool) -> None:
    await _three_of_four_bytes(tmp_path, BlobLimits(**limit), refused)  # pyright: ignore[reportArgumentType]


async def _three_of_four_bytes(folder: Path, limits: BlobLimits, refused: bool) -> None:
    with opened(folder, limits=limits) as store:
        for _ in range(2):
            await store.requests.create(BlobSpec(size_bytes=4))
        with pytest.raises(ResourceExhausted, match=r"^QUOTA_EXCEEDED: ") if refused else nullcontext() as told:
            await store.requests.create(BlobSpec(size_bytes=4))
    if told is not None:
        held = {"count": "2", "held_bytes": "8", "needed_bytes": "4"}
        assert held.items() & told.value.facts.items() in (
            {("count", "2")},
            {("held_bytes", "8"), ("needed_bytes", "4")},
        )


async def test_blobs_that_are_being_made_count(tmp_path: Path) -> None:
    with opened(tmp_path, limits=BlobLimits(max_count=2)) as store:
        made = await asyncio.gather(
            *(store.requests.create(BlobSpec(size_bytes=4)) for _ in range(4)), return_exceptions=True
        )
        assert sum(isinstance(each, Blob) for each in made) == 2
        assert len(store.all()) == 2


async def test_a_file_is_mapped_to_its_last_byte_and_not_beyond(blobs: BlobStore) -> None:
    path = blobs.files.folder.parent / "shared" / "f"
    path.write_bytes(b"01234567")

    async def mapped(offset: int, size: int | None, *, verify: bool = True) -> bytes:
        backing = MappedFile(path=str(path), offset_bytes=offset)
        blob = await blobs.requests.register(Registration(backing=backing, size_bytes=size, verify=verify))
        return await content(blobs, blob.id)

    assert await mapped(0, 8) == b"01234567"
    assert await mapped(3, 5) == await mapped(3, None) == b"34567"
    assert await mapped(8, None) == await mapped(8, 0) == b""
    for offset, size in ((0, 9), (3, 6), (9, None), (9, 0)):
        for verify in (True, False):
            with pytest.raises(FailedPrecondition, match="has 8 bytes"):
                await mapped(offset, size, verify=verify)
    backing = MappedFile(path=f"{path}-absent")
    with pytest.raises(NotFound) as absent:
        await blobs.requests.register(Registration(backing=backing))
    assert absent.value.reason is ErrorReason.PATH_NOT_FOUND
    assert len(os.listdir("/proc/self/fd")) < 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"idle_after_s": 1.0}, ""),
        ({"idle_after_s": 24 * 3600.0}, ""),
        ({"idle_after_s": 0.9}, "memory_budget.idle_after"),
        ({"idle_after_s": 24 * 3600.0 + 1}, "memory_budget.idle_after"),
        ({"limit_bytes": 0}, ""),
        ({"limit_bytes": -1}, "memory_budget.limit_bytes"),
        ({"limit_bytes": 1}, ""),
        ({"headroom_bytes": 0}, ""),
        ({"headroom_bytes": -1}, "memory_budget.headroom_bytes"),
    ],
)
def test_a_budget(changes: dict[str, Any], field: str) -> None:
    assert fields_of(lambda: MemoryBudget(**changes)) == ([field] if field else [])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"free_bytes": 0}, ""),
        ({"free_bytes": -1}, "free_bytes"),
        ({"used_ratio": 0.0}, ""),
        ({"used_ratio": 1.0}, ""),
        ({"used_ratio": -0.01}, "used_ratio"),
        ({"used_ratio": 1.01}, "used_ratio"),
        ({"max_s": 0.1}, ""),
        ({"max_s": 600.0}, ""),
        ({"max_s": 0.09}, "max_duration"),
        ({"max_s": 600.1}, "max_duration"),
    ],
)
def test_a_clean_up(changes: dict[str, Any], field: str) -> None:
    assert fields_of(lambda: ReclaimAsk(**changes)) == ([field] if field else [])


async def test_a_reservation_grows_up_to_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(100)
    kept = (await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=60))).reservation
    assert (await bench.reservations.renew(kept.id, size_bytes=100)).size_bytes == 100
    assert (await bench.reservations.renew(kept.id, size_bytes=50)).size_bytes == 50
    with pytest.raises(ResourceExhausted):
        await bench.reservations.renew(kept.id, size_bytes=101)
    for wrong in ({"live_s": 0.5}, {"size_bytes": 0}):
        with pytest.raises(InvalidRequest):
            await bench.reservations.renew(kept.id, **wrong)  # pyright: ignore[reportArgumentType]  # by name


async def test_what_has_changed_since_it_was_read_is_neither_renewed_nor_deleted() -> None:
    bench = Bench(100)
    kept = (await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=60))).reservation
    renewed = await bench.reservations.renew(kept.id, etag=kept.etag)
    with pytest.raises(Aborted) as caught:
        await bench.reservations.renew(kept.id, etag=kept.etag)
    assert caught.value.reason is ErrorReason.ETAG_MISMATCH
    with pytest.raises(Aborted):
        bench.reservations.delete(kept.id, kept.etag)
    assert bench.reservations.delete(kept.id, renewed.etag) == 60


async def test_what_is_admitted_is_free_and_of_the_pool_of_its_reservation() -> None:
    bench = Bench(100)
    admission = Admission(bench.pools, bench.reservations)
    claim = await admission.admit("sim-0", 100, "", "job-1")
    with pytest.raises(ResourceExhausted):
        await admission.admit("sim-0", 1, "", "job-2")
    (await admission.admit("sim-0", 0, "", "job-3")).close()
    claim.close()
    await bench.pools.measure("sim-0")
    kept = (await bench.queue.create(ReservationAsk(pool_id="sim-0", size_bytes=60))).reservation
    with pytest.raises(ResourceExhausted):
        await admission.admit("sim-0", 101, kept.id, "job-4")
    (await admission.admit("sim-0", 100, kept.id, "job-4")).close()
