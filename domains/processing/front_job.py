"""A job that the front process carries out by itself: what its journal is told at the end."""

import asyncio
import time
from collections.abc import Coroutine
from typing import TypeVar

import msgspec

from domains.processing.job import Job
from domains.processing.job_event import Cancelled, JobReceipt, JobResult, Succeeded
from domains.processing.jobs import Jobs
from domains.processing.live_job import empty_receipt
from domains.progress import Receipt, Stage, StageTiming

Result = TypeVar("Result")

_PATIENCE_S = 60.0
"""A wait for the journal has an end; it is waited again then."""


class FrontJob:
    """One attempt."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self._jobs = jobs
        self.id = job.id

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._jobs.live(self.id).cancel_time_s is not None

    async def until_cancelled(self) -> None:
        """Wait until it is asked to stop, or has ended."""
        live = self._jobs.live(self.id)
        while live.cancel_time_s is None and not live.journal.closed:
            await live.journal.more(live.journal.last_sequence, _PATIENCE_S)

    async def unless_cancelled(self, work: Coroutine[None, None, Result]) -> Result | None:
        """What the work gives. None: the job was asked to stop, and the work broke off where it waited."""
        loop, waiting = asyncio.get_running_loop(), asyncio.timeout(None)

        async def listen() -> None:
            await self.until_cancelled()
            waiting.reschedule(loop.time())

        try:
            async with waiting:
                listening = asyncio.create_task(listen())
                try:
                    return await work
                finally:
                    listening.cancel()
        except TimeoutError:
            if not waiting.expired():
                raise
            return None

    def succeeded(self, result: JobResult, stage: Stage, wall_s: float) -> None:
        """The end: all of it was done, in one stage."""
        receipt = self._receipt(Receipt(timings=(StageTiming(stage=stage, wall_s=wall_s),)))
        self._jobs.record(self.id, Succeeded(result=result, receipt=receipt))

    def stopped(self, stage: Stage) -> None:
        """The end: it was asked to stop, and has."""
        live = self._jobs.live(self.id)
        latency = time.monotonic() - live.cancel_time_s if live.cancel_time_s else 0.0
        receipt = self._receipt(Receipt())
        self._jobs.record(self.id, Cancelled(stage=stage, latency_s=latency, cause=live.cancel_cause, receipt=receipt))

    def _receipt(self, work: Receipt) -> JobReceipt:
        return msgspec.structs.replace(empty_receipt(self._jobs.get(self.id)), work=work)
