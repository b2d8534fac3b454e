"""A scan for models: work of the front process."""

import asyncio
import time

from domains.model.catalogue import Catalogue
from domains.processing.front_job import FrontJob
from domains.processing.job import Job, ScanWork
from domains.processing.job_event import ScanResult
from domains.processing.jobs import Jobs
from domains.processing.pace import Pace
from domains.progress import Progressed, Stage, StageStarted


class ScanRuns:
    """Carries out scans."""

    def __init__(self, jobs: Jobs, catalogue: Catalogue) -> None:
        self._jobs = jobs
        self._catalogue = catalogue

    async def run(self, job: Job) -> None:
        """To its end, or to its cancellation."""
        front, pace, loop = FrontJob(self._jobs, job), Pace(), asyncio.get_running_loop()

        def tell(report: Progressed) -> None:
            loop.call_soon_threadsafe(self._jobs.record, job.id, pace.at(report))

        self._jobs.record(job.id, StageStarted(stage=Stage.SCANNING))
        folders = job.work.roots if isinstance(job.work, ScanWork) else ()
        begin = time.monotonic()
        report = await self._catalogue.rescan(tell, lambda: front.cancelled, folders)
        if front.cancelled:
            front.stopped(Stage.SCANNING)
        else:
            front.succeeded(ScanResult(report=report), Stage.SCANNING, time.monotonic() - begin)
