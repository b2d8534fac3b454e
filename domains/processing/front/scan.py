"""A scan for models."""

import asyncio
import time

from domains.model.catalogue import Catalogue
from domains.processing.attempts.front_task import FrontTask
from domains.processing.jobs.event import ScanResult
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.outcome import Done, Halted
from domains.progress import Progressed, Stage, StageStarted


class ScanRunner:
    """Carries out scans."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(self, work: ScanWork, task: FrontTask) -> Done | Halted:
        """Scan until the end or a request to stop."""
        loop = asyncio.get_running_loop()

        def tell(report: Progressed) -> None:
            loop.call_soon_threadsafe(task.tell, report)

        task.tell(StageStarted(stage=Stage.SCANNING))
        begin = time.monotonic()
        report = await self._catalogue.rescan(tell, task.is_stopping, work.roots, recompute=work.recompute)
        if task.is_stopping():
            return Halted()
        return Done.in_one_stage(ScanResult(report=report), Stage.SCANNING, time.monotonic() - begin)
