"""A transfer of a blob: the front process reads and writes every tier.

The job holds the source from the moment it is queued, so that neither a delete nor an expiry removes it earlier. A move
deletes its source only after the job's end is stored.
"""

import time
from contextlib import suppress

import msgspec

from domains.errors import DeviceOpsError
from domains.memory.blobs.blob import BlobOrigin
from domains.memory.blobs.listing import BlobFilter
from domains.memory.blobs.store import BlobStore
from domains.memory.blobs.transfer import transfer
from domains.memory.blobs.transfer_request import TransferRequest
from domains.processing.attempts.front_task import FrontTask
from domains.processing.jobs.event import TransferResult
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import TransferWork
from domains.processing.jobs.outcome import Done, Halted
from domains.processing.jobs.state import AT_REST, JobState
from domains.progress import Progressed, Stage, StageStarted, Unit


class TransferRunner:
    """Carries out transfers."""

    def __init__(self, jobs: Jobs, blobs: BlobStore) -> None:
        self._jobs = jobs
        self._blobs = blobs
        jobs.listeners.append(self._changed)

    def recover(self) -> None:
        """Complete transfers whose end was stored before a crash: release and delete their sources."""
        for job_id in self._blobs.holders():
            if (job := self._jobs.find(job_id)) is not None:
                self._changed(job)

    async def run(self, work: TransferWork, task: FrontTask) -> Done | Halted:
        """Transfer until the end or a request to stop, which leaves the source unchanged and creates no blob."""
        request, job_id = await self._request_of(work, task.job), task.job.id
        task.tell(StageStarted(stage=Stage.COPYING))

        def tell(done: int, total: int) -> None:
            task.tell(Progressed(stage=Stage.COPYING, completed=done, total=total, unit=Unit.BYTES))

        begin = time.monotonic()
        report = await transfer(self._blobs, request, progress=tell, should_stop=task.is_stopping, job_id=job_id)
        if report is None:
            return Halted()
        return Done.in_one_stage(TransferResult(report=report), Stage.COPYING, time.monotonic() - begin)

    async def _request_of(self, work: TransferWork, job: Job) -> TransferRequest:
        """The transfer to do, after the leftovers of an earlier attempt are removed."""
        if not job.attempt and not self._jobs.inherited(job):
            return work.request
        left = BlobFilter(origins=(BlobOrigin.TRANSFER,), origin_job_id=job.id)
        for blob in [blob async for blob in self._blobs.each(left)]:
            # The copy was complete, and the server died before it stored the job's end.
            self._blobs.discard(blob.id)
        # The reservation ended with the server that granted it.
        return msgspec.structs.replace(work.request, reservation_id="")

    def _changed(self, job: Job) -> None:
        if not isinstance(job.work, TransferWork):
            return
        source = job.work.request.blob_id
        if job.state.ended:
            if job.state is JobState.SUCCEEDED and job.work.request.move:
                self._blobs.discard(source)
            self._blobs.let_go(source, job.id)
        elif job.state in AT_REST:
            # A missing source fails the job when its turn comes.
            with suppress(DeviceOpsError):
                self._blobs.hold(source, job.id)
