"""Jobs that continue from the checkpoint of another job. That job keeps its own checkpoint and is not changed."""

from domains.errors import DataLoss, ErrorReason, FailedPrecondition
from domains.inference.branch import check_branch, filled
from domains.inference.checks.request import Checked, checked
from domains.memory.blobs.store import BlobStore
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.jobs.state import JobState

_CONTINUES = (JobState.PAUSED, JobState.INTERRUPTED, JobState.FAILED, JobState.CANCELLED)
"""States in which a job's checkpoint does not change: others may branch from it."""
_MEDIA_TYPE = "application/octet-stream"


class Branches:
    """Finds jobs to continue, and shares their checkpoints with the jobs that continue them."""

    def __init__(self, jobs: Jobs, blobs: BlobStore) -> None:
        self._jobs = jobs
        self._blobs = blobs

    def find(self, job_id: str) -> Job:
        """A job that can be continued. Raises JOB_NOT_FOUND; ILLEGAL_STATE while it waits or runs, or if it was completed;
        CHECKPOINT_CORRUPT if it has no checkpoint that can be read."""
        job = self._jobs.get(job_id)
        if job.state not in _CONTINUES:
            message = f"job {job.id} is {job.state}; it must be paused, interrupted, failed or cancelled"
            raise FailedPrecondition(message, ErrorReason.ILLEGAL_STATE, job_id=job.id, state=job.state)
        kept = job.checkpoint
        if kept is None or not isinstance(job.work, GenerateWork) or not self._blobs.files.path(kept.sha256).is_file():
            message = f"job {job.id} has no checkpoint to continue from; submit it anew"
            raise DataLoss(message, ErrorReason.CHECKPOINT_CORRUPT, job_id=job.id)
        return job

    def same(self, continued: Job) -> Checked:
        """The request of a job that is continued as it was."""
        return checked(_work(continued).asked)

    def filled(self, given: Checked, continued: Job) -> Checked:
        """See `domains.inference.branch.filled`."""
        return filled(given, _work(continued).asked, _work(continued).resolved)

    def check(self, work: GenerateWork, continued: Job) -> None:
        """See `check_branch`."""
        check_branch(work.resolved, _work(continued).resolved, continued.id)

    def own(self, continued: Job, job_id: str) -> None:
        """Make a job that is about to be stored a further owner of the checkpoint. Raises CHECKPOINT_CORRUPT if that is gone
        meanwhile."""
        kept = self.find(continued.id).checkpoint
        assert kept is not None, "find has refused a job without a checkpoint"
        self._blobs.adopt(kept.sha256, kept.size_bytes, _MEDIA_TYPE, job_id)


def _work(job: Job) -> GenerateWork:
    assert isinstance(job.work, GenerateWork), "find has refused other work"
    return job.work
