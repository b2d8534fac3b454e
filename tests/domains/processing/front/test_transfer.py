"""A transfer's job holds its source while it waits, and deletes it after a move only when its own end is written down."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from domains.errors import ErrorReason
from domains.memory.blobs.blob import BlobState, BlobTier
from domains.memory.blobs.store import BlobStore
from domains.memory.blobs.transfer_request import NewBlob, TransferRequest
from domains.processing.front.transfer import TransferRunner
from domains.processing.jobs.event import JobEvent, JobProgress, Succeeded, TransferResult
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import TransferWork
from domains.processing.jobs.state import JobState
from domains.processing.jobs.store import JobStore
from domains.progress import Progressed, Stage, Unit
from domains.storage import open_database
from tests.domains.memory.blobs import content, files, opened, uploaded
from tests.domains.processing.front_attempt import attempt

DATA = b"0123456789"


class Killed(BaseException):
    """The process ends here."""


class Server:
    """What a server has of transfers."""

    def __init__(self, jobs: Jobs, blobs: BlobStore) -> None:
        self.jobs, self.blobs = jobs, blobs
        self.transfers = TransferRunner(jobs, blobs)

    def submit(self, source: str, *, move: bool = False) -> Job:
        request = TransferRequest(blob_id=source, destination=NewBlob(), move=move)
        return self.jobs.submit(TransferWork(request=request), JobOptions())[0]

    async def run(self, job: Job) -> TransferResult:
        await attempt(self.jobs, job, transfer=self.transfers.run)
        ended = self.jobs.get(job.id)
        assert ended.state is JobState.SUCCEEDED
        assert isinstance(ended.result, TransferResult)
        return ended.result


@contextmanager
def served(folder: Path) -> Generator[Server]:
    """As a new process would take up what the last one left."""
    database = open_database(folder)
    try:
        with opened(folder) as blobs:
            server = Server(Jobs(JobStore(database, folder), 3600), blobs)
            blobs.sweep(server.jobs.ids().__contains__)
            server.transfers.recover()
            server.jobs.recover()
            yield server
    finally:
        database.close()


async def test_a_source_that_a_queued_transfer_needs_outlives_its_delete_and_its_expiry(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        source = await uploaded(server.blobs, DATA)
        job = server.submit(source.id)
        assert server.blobs.collect(source.create_time_s + 1e9) == 0
        deleted = server.blobs.delete(source.id)
        assert (deleted.deferred, deleted.holder_ids) == (True, (job.id,))
        copy = (await server.run(job)).report.blob
        assert [blob.id for blob in server.blobs.all()] == [copy.id]
        assert await content(server.blobs, copy.id) == DATA


async def test_a_transfer_tells_no_more_time_than_passed(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        source = await uploaded(server.blobs, DATA)
        job, begin = server.submit(source.id), time.monotonic()
        report = (await server.run(job)).report
        passed_s = time.monotonic() - begin
        receipt = server.jobs.get(job.id).receipt
        assert receipt is not None
        (copying,) = receipt.work.timings
        assert 0 < report.copy_s <= copying.wall_s <= passed_s


async def test_a_transfer_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path) as server:
        told: list[JobEvent] = []
        record = server.jobs.record

        def noted(job_id: str, event: JobEvent) -> Job:
            told.append(event)
            return record(job_id, event)

        monkeypatch.setattr(server.jobs, "record", noted)
        await server.run(server.submit((await uploaded(server.blobs, DATA)).id))
        progress = [event.at for event in told if isinstance(event, JobProgress)]
        assert progress[-1] == Progressed(stage=Stage.COPYING, completed=10, total=10, unit=Unit.BYTES)


async def test_a_cancelled_transfer_lets_go_of_its_source(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        source = await uploaded(server.blobs, DATA)
        server.jobs.cancel(server.submit(source.id, move=True).id)
        assert (server.blobs.get(source.id).state, server.blobs.holders()) == (BlobState.READY, set())


async def test_a_move_deletes_the_source_when_its_readers_are_gone(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        source = await uploaded(server.blobs, DATA)
        async with server.blobs.reading(source.id) as reader:
            result = await server.run(server.submit(source.id, move=True))
            assert result.report.source_deleted
            assert await reader.read(0, 10, bytes) == DATA
        assert [blob.id for blob in server.blobs.all()] == [result.report.blob.id]


@pytest.mark.parametrize("written_down", [False, True])
async def test_a_kill_around_the_end_of_a_move_costs_neither_the_bytes_nor_a_second_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, written_down: bool
) -> None:
    with served(tmp_path) as server:
        source = await uploaded(server.blobs, DATA)
        job = server.submit(source.id, move=True)
        record = server.jobs.record
        discard = server.blobs.discard

        def killed_before(job_id: str, event: JobEvent) -> Job:
            if isinstance(event, Succeeded):
                raise Killed
            return record(job_id, event)

        def killed_after(name: str) -> None:
            if name == source.id:
                raise Killed
            discard(name)

        if written_down:
            monkeypatch.setattr(server.blobs, "discard", killed_after)
        else:
            monkeypatch.setattr(server.jobs, "record", killed_before)
        with pytest.raises(Killed):
            await server.run(job)
    with served(tmp_path) as server:
        if not written_down:
            await server.run(server.jobs.get(job.id))
        result = server.jobs.get(job.id).result
        assert isinstance(result, TransferResult)
        copy = result.report.blob
        assert [blob.id for blob in server.blobs.all()] == [copy.id]
        assert files(server.blobs) == [copy.id]
        assert await content(server.blobs, copy.id) == DATA


async def test_a_later_attempt_pays_with_no_reservation(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        source = await uploaded(server.blobs, DATA)
        # Where there are no reservations, each that is named is refused.
        request = TransferRequest(blob_id=source.id, destination=NewBlob(tier=BlobTier.HOST), reservation_id="r-1")
        first, second = (server.jobs.submit(TransferWork(request=request), JobOptions())[0] for _ in range(2))
        await attempt(server.jobs, first, transfer=server.transfers.run)
        failure = server.jobs.get(first.id).failure
        assert failure is not None
        assert failure.reason is ErrorReason.RESERVATION_NOT_FOUND
        await attempt(server.jobs, msgspec.structs.replace(second, attempt=1), transfer=server.transfers.run)
        assert server.jobs.get(second.id).state is JobState.SUCCEEDED
