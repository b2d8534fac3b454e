"""One attempt at work of the front process, as its runner sees it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from domains.processing.attempts.progress_rate import ProgressRate
from domains.processing.attempts.unless_set import unless_set
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ConvertWork, HostLoadWork, ResetWork, ScanWork, TransferWork, ValidateWork
from domains.processing.jobs.outcome import Done, Halted
from domains.progress import Progressed, StageStarted

Result = TypeVar("Result")


class FrontTask:
    """Lets a runner report, and see whether its job was asked to stop."""

    def __init__(self, job: Job, jobs: Jobs, stopping: asyncio.Event) -> None:
        """`job`: its value when the attempt began; `stopping`: set by a request to stop."""
        self.job = job
        self._jobs = jobs
        self._stopping = stopping
        self._rate = ProgressRate()

    def tell(self, report: StageStarted | Progressed) -> None:
        """Record the report as an event of the job."""
        self._jobs.record(self.job.id, self._rate.at(report) if isinstance(report, Progressed) else report)

    def is_stopping(self) -> bool:
        """Whether the job was asked to stop."""
        return self._stopping.is_set()

    async def unless_stopped(self, work: Awaitable[Result]) -> Result | None:
        """Await the work; returns its result. None: a request to stop came first and cancelled the work."""
        return await unless_set(self._stopping, work)


class FrontRunners(msgspec.Struct, frozen=True, kw_only=True):
    """The runner of each kind of front work. `domains.processing.front` has the real ones."""

    scan: Callable[[ScanWork, FrontTask], Awaitable[Done | Halted]]
    reset: Callable[[ResetWork, FrontTask], Awaitable[Done | Halted]]
    transfer: Callable[[TransferWork, FrontTask], Awaitable[Done | Halted]]
    validate: Callable[[ValidateWork, FrontTask], Awaitable[Done | Halted]]
    load_to_host: Callable[[HostLoadWork, FrontTask], Awaitable[Done | Halted]]
    convert: Callable[[ConvertWork, FrontTask], Awaitable[Done | Halted]]
