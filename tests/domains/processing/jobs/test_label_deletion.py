"""Deleting by labels: what a dry run counts is what is deleted then, and what has not ended stays."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from domains.memory.blobs import listing
from domains.memory.blobs.blob import Blob, BlobSpec, BlobState, BlobTier, MappedFile
from domains.memory.blobs.registration_request import Registration
from domains.memory.blobs.store import BlobStore
from domains.processing.jobs import label_deletion
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.label_deletion import MAX_IDS, Deletion, LabelDeletion, Named
from domains.processing.jobs.store import JobStore
from domains.storage import open_database
from tests.domains.memory.blobs import opened

MINE = (("owner", "me"),)


class Shelf:
    """Jobs and blobs with labels."""

    def __init__(self, jobs: Jobs, blobs: BlobStore, folder: Path) -> None:
        self.jobs, self.blobs, self.folder = jobs, blobs, folder
        self.deletion = LabelDeletion(jobs, blobs)

    def waiting(self, labels: tuple[tuple[str, str], ...] = MINE) -> Job:
        return self.jobs.submit(ScanWork(roots=()), JobOptions(labels=labels))[0]

    def ended(self, labels: tuple[tuple[str, str], ...] = MINE) -> str:
        job = self.waiting(labels)
        self.jobs.cancel(job.id)
        return job.id

    async def blob(self, size: int = 3, labels: tuple[tuple[str, str], ...] = MINE) -> Blob:
        spec = BlobSpec(size_bytes=size, labels=labels, tier=BlobTier.HOST, fill_byte=1)
        return await self.blobs.requests.create(spec)

    def there(self) -> set[str]:
        return {blob.id for blob in self.blobs.all()}


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    database = open_database(tmp_path)
    with opened(tmp_path) as blobs:
        yield Shelf(Jobs(JobStore(database, tmp_path), 3600), blobs, tmp_path)
    database.close()


async def both(shelf: Shelf, labels: tuple[tuple[str, str], ...] = MINE) -> Deletion:
    """What a dry run says, which is what the deletion then does."""
    before = shelf.there(), shelf.jobs.ids()
    plan = await shelf.deletion.plan(labels)
    assert (shelf.there(), shelf.jobs.ids()) == before
    done = await shelf.deletion.run(labels)
    assert plan == done
    return done


async def test_ended_jobs_go_with_all_that_they_made_and_others_are_told(shelf: Shelf) -> None:
    first, second = shelf.ended(), shelf.ended()
    other, waiting = shelf.ended((("owner", "you"),)), shelf.waiting()
    for job_id in (first, second, other):
        await shelf.blobs.keep(f"of {job_id}".encode(), "", job_id)
    await shelf.blobs.keep(b"shared", "", first)
    await shelf.blobs.keep(b"shared", "", other)
    done = await both(shelf)
    assert (done.jobs.count, done.jobs.ids) == (2, [second, first])
    assert (done.skipped_jobs.count, done.skipped_jobs.ids) == (1, [waiting.id])
    assert done.freed_bytes == len(f"of {first}") + len(f"of {second}")
    assert done.blobs.count == 0
    assert shelf.jobs.ids() == {other, waiting.id}
    assert len(shelf.there()) == 2


async def test_blobs_with_the_labels_go_newest_first_and_those_in_use_later(shelf: Shelf) -> None:
    old, read, other = await shelf.blob(3), await shelf.blob(5), await shelf.blob(7, (("owner", "you"),))
    async with shelf.blobs.reading(read.id):
        done = await both(shelf)
        assert done.blobs.ids == [read.id, old.id]
        assert (done.deferred_blobs, done.freed_bytes) == (1, 3)
        assert shelf.blobs.get(read.id).state is BlobState.DELETING
        assert (await both(shelf)).blobs.count == 0, "it is deleted already"
    assert shelf.there() == {other.id}


async def test_a_blob_that_a_deleted_job_alone_uses_is_not_deferred(shelf: Shelf) -> None:
    blob, job_id = await shelf.blob(4), shelf.ended()
    shelf.blobs.hold(blob.id, job_id)
    plan = await shelf.deletion.plan(MINE)
    assert (plan.deferred_blobs, plan.freed_bytes) == (0, 4)


async def test_the_bytes_of_a_mapped_blob_stay_with_their_owner(shelf: Shelf) -> None:
    path = shelf.folder / "shared" / "file"
    path.write_bytes(b"123456")
    asked = Registration(backing=MappedFile(path=str(path)), labels=MINE)
    await shelf.blobs.requests.register(asked)
    done = await both(shelf)
    assert (done.blobs.count, done.freed_bytes) == (1, 0)
    assert path.exists()


async def test_every_page_of_jobs_is_looked_at(shelf: Shelf) -> None:
    made = [shelf.ended() for _ in range(105)]
    done = await both(shelf)
    assert done.jobs.ids == made[::-1]
    assert shelf.jobs.ids() == set()


async def test_blobs_are_looked_at_in_portions_between_which_others_run(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED", 2)
    wanted = [(await shelf.blob(labels=labels)).id for labels in (MINE, (), (), (), MINE, (), ())][0:5:4]
    plan, turns = asyncio.ensure_future(shelf.deletion.plan(MINE)), 0
    while not plan.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 3
    assert plan.result().blobs.ids == wanted[::-1]


async def test_labels_must_all_match(shelf: Shelf) -> None:
    both_labels = shelf.ended((*MINE, ("kind", "test")))
    shelf.ended()
    done = await both(shelf, (("kind", "test"), ("owner", "me")))
    assert done.jobs.ids == [both_labels]


def test_ids_are_bounded_and_counts_are_not() -> None:
    named = Named()
    for number in range(MAX_IDS + 1):
        named.add(str(number))
    assert (named.count, len(named.ids), named.ids[-1]) == (MAX_IDS + 1, MAX_IDS, str(MAX_IDS - 1))


async def test_other_work_goes_on_between_portions(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_deletion, "_DELETED_AT_ONCE", 2)
    for _ in range(4):
        shelf.ended()
        await shelf.blob()
    seen: list[tuple[int, int]] = []

    async def look() -> None:
        while True:
            seen.append((len(shelf.jobs.ids()), len(shelf.there())))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await shelf.deletion.run(MINE)
    looking.cancel()
    assert {(4, 4), (2, 4), (0, 4), (0, 2), (0, 0)} <= {*seen, (4, 4)}
