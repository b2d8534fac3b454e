"""Checkpoints: kept with their job, one at a time, and a full disk costs the progress, not the job."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from domains.errors import ErrorReason, ResourceExhausted
from domains.inference.outcome import CheckpointReady
from domains.memory.blobs.store import BlobStore
from domains.processing.attempts.checkpoints import CheckpointCare, kept
from domains.processing.jobs.event import Checkpoint, Paused, Resumed, Started
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.state import JobState
from domains.processing.jobs.store import JobStore
from domains.progress import Degraded, Stage
from domains.storage import open_database
from tests.domains.memory.blobs import content, opened, sha


class Care:
    """A job with checkpoints."""

    def __init__(self, jobs: Jobs, blobs: BlobStore) -> None:
        self.jobs, self.blobs = jobs, blobs
        self.job_id = jobs.submit(ScanWork(), JobOptions())[0].id
        CheckpointCare(jobs, blobs)

    async def keep(self, data: bytes, step: int) -> Checkpoint | None:
        return await kept(CheckpointReady(step=step, data=data), self.job_id, self.jobs, self.blobs)

    def pause(self, checkpoint: Checkpoint | None) -> None:
        self.jobs.record(self.job_id, Started(device_id="sim-0", attempt=1))
        self.jobs.pause(self.job_id)
        self.jobs.record(self.job_id, Paused(stage=Stage.DENOISING, completed=1, checkpoint=checkpoint))

    def there(self) -> set[str]:
        return {blob.id for blob in self.blobs.all()}


@pytest.fixture
def care(tmp_path: Path) -> Iterator[Care]:
    database = open_database(tmp_path)
    with opened(tmp_path) as blobs:
        yield Care(Jobs(JobStore(database, tmp_path), 3600), blobs)
    database.close()


async def test_a_checkpoint_is_a_blob_with_its_step_and_hash(care: Care) -> None:
    found = await care.keep(b"latents", 7)
    assert found is not None
    assert (found.step, found.size_bytes, found.sha256) == (7, 7, sha(b"latents"))
    assert found.time_s > 1e9
    assert await content(care.blobs, found.blob_id) == b"latents"


async def test_a_newer_checkpoint_takes_the_place_of_the_older_one(care: Care) -> None:
    first = await care.keep(b"first", 1)
    care.pause(first)
    assert first is not None
    assert care.there() == {first.blob_id}
    care.jobs.record(care.job_id, Resumed(from_step=1))
    second = await care.keep(b"second", 2)
    care.pause(second)
    assert second is not None
    assert care.there() == {second.blob_id}
    care.jobs.record(care.job_id, Resumed(from_step=2))
    care.pause(None)
    assert care.there() == {second.blob_id}, "the next attempt reads it"


async def test_the_checkpoint_of_a_cancelled_job_stays_until_the_job_is_deleted(care: Care) -> None:
    first = await care.keep(b"first", 1)
    care.pause(first)
    assert care.jobs.cancel(care.job_id).state is JobState.CANCELLED
    assert len(care.there()) == 1
    care.jobs.delete(care.job_id)
    care.blobs.release(care.job_id)
    assert care.there() == set()


async def test_a_disk_that_refuses_a_checkpoint_is_told_and_the_job_goes_on(
    care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise ResourceExhausted("the disk is full", ErrorReason.STORAGE_FULL)

    care.jobs.record(care.job_id, Started(device_id="sim-0", attempt=1))
    monkeypatch.setattr(care.blobs, "keep", full)
    assert await care.keep(b"first", 3) is None
    (told,) = [e.value for e in care.jobs.live(care.job_id).journal.after(0) if isinstance(e.value, Degraded)]
    assert (told.kind, told.reason) == ("checkpoint_dropped", "STORAGE_FULL")
    assert told.detail == "the progress at step 3 could not be stored: the disk is full"
    assert care.jobs.get(care.job_id).state is JobState.RUNNING


async def test_a_checkpoint_that_the_disk_refuses_is_logged_with_the_reason(
    care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise ResourceExhausted("no room", ErrorReason.STORAGE_FULL)

    monkeypatch.setattr(care.blobs, "keep", refuse)
    with capture_logs() as lines:
        assert await care.keep(b"latents", 7) is None
    (line,) = lines
    assert (line["event"], line["reason"], line["problem"]) == (
        "a checkpoint could not be stored",
        ErrorReason.STORAGE_FULL,
        "no room",
    )
