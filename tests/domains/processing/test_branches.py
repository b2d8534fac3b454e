"""Which jobs another one can continue, and with what."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, InvalidRequest, NotFound
from domains.inference.checks.request import checked
from domains.inference.generation import Generation, Sampling
from domains.processing.branches import Branches
from domains.processing.jobs.event import Checkpoint, Paused, Started
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.state import JobState
from domains.progress import Stage
from tests.domains.processing.test_submit import GPU, PLAIN, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.database.close()


def paused(desk: Desk, job: Job, *, kept: bool = True) -> Job:
    """The job after a pause in its seventh step."""
    desk.jobs.record(job.id, Started(device_id=GPU, attempt=1))
    sha256 = desk.blobs.files.write(b"latents")
    checkpoint = Checkpoint(blob_id="b", sha256=sha256, size_bytes=7, step=7, time_s=1.0) if kept else None
    desk.jobs.pause(job.id)
    desk.jobs.record(job.id, Paused(stage=Stage.DENOISING, completed=7, checkpoint=checkpoint))
    return desk.jobs.get(job.id)


async def test_a_job_that_stands_still_with_its_checkpoint_is_continued(desk: Desk) -> None:
    job = paused(desk, desk.generate())
    branches = Branches(desk.jobs, desk.blobs)
    assert branches.find(job.id) == job
    desk.jobs.cancel(job.id)
    assert branches.find(job.id).state is JobState.CANCELLED


async def test_a_job_whose_checkpoint_may_still_change_is_not_continued(desk: Desk) -> None:
    branches = Branches(desk.jobs, desk.blobs)
    with pytest.raises(FailedPrecondition, match="it must be paused") as refused:
        branches.find(desk.generate().id)
    assert refused.value.reason is ErrorReason.ILLEGAL_STATE
    with pytest.raises(NotFound):
        branches.find("job-none")


async def test_a_job_without_a_checkpoint_that_can_be_read_is_not_continued(desk: Desk) -> None:
    bare, lost = paused(desk, desk.generate(), kept=False), paused(desk, desk.generate())
    other = paused(desk, desk.submissions.scan(ScanWork(), PLAIN))
    assert lost.checkpoint is not None
    branches = Branches(desk.jobs, desk.blobs)
    assert branches.find(lost.id) == lost
    desk.blobs.files.path(lost.checkpoint.sha256).unlink()
    for job in (bare, lost):
        with pytest.raises(DataLoss) as refused:
            branches.find(job.id)
        assert refused.value.reason is ErrorReason.CHECKPOINT_CORRUPT
    desk.blobs.files.write(b"latents")
    assert branches.find(lost.id) == lost
    with pytest.raises(DataLoss):
        branches.find(other.id)


async def test_what_made_the_latents_stays_as_it_was(desk: Desk) -> None:
    job = paused(desk, desk.generate(sampling=Sampling(steps=20)))
    branches = Branches(desk.jobs, desk.blobs)
    same = desk.submissions.generate(branches.filled(branches.same(job), job), PLAIN, continued=job)
    assert same.state is JobState.QUEUED
    other = branches.filled(checked(Generation(prompt="a fox", sampling=Sampling(steps=21))), job)
    with pytest.raises(InvalidRequest) as refused:
        desk.submissions.generate(other, PLAIN, continued=job)
    assert [each.field for each in refused.value.violations] == ["generation.sampling.steps"]


async def test_a_branch_owns_the_checkpoint_that_it_continues(desk: Desk) -> None:
    job, branches = paused(desk, desk.generate()), Branches(desk.jobs, desk.blobs)
    assert job.checkpoint is not None
    branches.own(job, "branch")
    (kept,) = [blob for blob in desk.blobs.all() if blob.sha256 == job.checkpoint.sha256]
    assert (kept.origin_job_id, kept.size_bytes) == ("branch", 7)
    desk.blobs.files.path(job.checkpoint.sha256).unlink()
    with pytest.raises(DataLoss):
        branches.own(job, "another")
