"""A transfer of a blob: work of the front process, which reads and writes every tier."""

import time

from domains.memory.blobs.store import BlobStore
from domains.memory.blobs.transfer import transfer
from domains.processing.front_job import FrontJob
from domains.processing.job import Job, TransferWork
from domains.processing.job_event import TransferResult
from domains.processing.jobs import Jobs
from domains.processing.pace import Pace
from domains.progress import Progressed, Stage, StageStarted, Unit


class TransferRuns:
    """Carries out transfers."""

    def __init__(self, jobs: Jobs, blobs: BlobStore) -> None:
        self._jobs = jobs
        self._blobs = blobs

    async def run(self, job: Job) -> None:
        """To its end, or to its cancellation, which leaves the source as it was and nothing new."""
        assert isinstance(job.work, TransferWork)
        front, pace = FrontJob(self._jobs, job), Pace()
        self._jobs.record(job.id, StageStarted(stage=Stage.COPYING))

        def tell(done: int, total: int) -> None:
            moved = Progressed(stage=Stage.COPYING, completed=done, total=total, unit=Unit.BYTES)
            self._jobs.record(job.id, pace.at(moved))

        begin = time.monotonic()
        report = await transfer(self._blobs, job.work.request, progress=tell, should_stop=lambda: front.cancelled)
        if report is None:
            front.stopped(Stage.COPYING)
        else:
            front.succeeded(TransferResult(report=report), Stage.COPYING, time.monotonic() - begin)
