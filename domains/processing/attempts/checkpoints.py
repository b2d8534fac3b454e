"""Stores the checkpoints of jobs on disk, and deletes those that no attempt will read."""

import time

import structlog

from domains.errors import DeviceOpsError
from domains.inference.outcome import CheckpointReady
from domains.memory.blobs.store import BlobStore
from domains.processing.jobs.event import Checkpoint
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.progress import Degraded

_MEDIA_TYPE = "application/octet-stream"

_log = structlog.get_logger()


async def kept(report: CheckpointReady, job_id: str, jobs: Jobs, blobs: BlobStore) -> Checkpoint | None:
    """Store a checkpoint as a blob that the job owns. None: the disk refused it; the job continues from its earlier one or
    from the start."""
    try:
        blob = await blobs.keep(report.data, _MEDIA_TYPE, job_id)
    except DeviceOpsError as error:
        _log.warning("a checkpoint could not be stored", reason=error.reason, problem=error.message)
        detail = f"the progress at step {report.step} could not be stored: {error.message}"
        jobs.record(job_id, Degraded(kind="checkpoint_dropped", reason=str(error.reason), detail=detail))
        return None
    return Checkpoint(
        blob_id=blob.id, sha256=blob.sha256, size_bytes=blob.size_bytes, step=report.step, time_s=time.time()
    )


class CheckpointCare:
    """Deletes the checkpoints that no attempt will read any more."""

    def __init__(self, jobs: Jobs, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._newest: dict[str, str] = {}
        """By unfinished job: the blob of its newest checkpoint."""
        jobs.listeners.append(self._changed)

    def _changed(self, job: Job) -> None:
        before = self._newest.get(job.id, "")
        now = job.checkpoint.blob_id if job.checkpoint else ""
        if before and before != now:
            self._blobs.let_go_made(before, job.id)
        if now and not job.state.ended:
            self._newest[job.id] = now
        else:
            self._newest.pop(job.id, None)
