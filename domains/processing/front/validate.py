"""A validation of a model's files."""

import asyncio
import time

from domains.model.catalogue import Catalogue
from domains.model.fingerprint import HashCancelled
from domains.processing.attempts.front_task import FrontTask
from domains.processing.jobs.event import ValidationResult
from domains.processing.jobs.kinds import ValidateWork
from domains.processing.jobs.outcome import Done, Halted
from domains.progress import Progressed, Stage, StageStarted


class ValidateRunner:
    """Carries out validations."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(self, work: ValidateWork, task: FrontTask) -> Done | Halted:
        """Validate until the end or a request to stop, which changes nothing."""
        loop = asyncio.get_running_loop()

        def tell(report: Progressed) -> None:
            loop.call_soon_threadsafe(task.tell, report)

        task.tell(StageStarted(stage=Stage.VERIFYING))
        begin = time.monotonic()
        try:
            report = await self._catalogue.validate(work.asked, tell, task.is_stopping)
        except HashCancelled:
            return Halted()
        return Done.in_one_stage(ValidationResult(report=report), Stage.VERIFYING, time.monotonic() - begin)
