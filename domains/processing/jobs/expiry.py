"""Deletes jobs after their retention, with their blobs, and expired blobs."""

import asyncio

import structlog

from domains.memory.blobs.store import BlobStore
from domains.processing.jobs.jobs import Jobs

_AT_ONCE = 20
"""Jobs deleted in one portion: about 5 ms."""

_log = structlog.get_logger()


class Expiry:
    """Deletes expired jobs and blobs periodically."""

    def __init__(self, jobs: Jobs, blobs: BlobStore) -> None:
        self._jobs = jobs
        self._blobs = blobs

    async def keep_up(self, every_s: float) -> None:
        """Run until cancelled. A failure (a full disk) is retried at the next interval."""
        while True:
            try:
                await self.expire()
            except Exception:
                _log.exception("what has expired could not be forgotten")
            await asyncio.sleep(every_s)

    async def expire(self) -> None:
        """Delete everything that has expired by now, in portions between which other tasks run."""
        deleted = False
        while job_ids := self._jobs.expired(_AT_ONCE):
            deleted = True
            for job_id in job_ids:
                self._jobs.delete(job_id)
                self._blobs.release(job_id)
            await asyncio.sleep(0)
        await self._blobs.collect_in_portions()
        if deleted:
            await self._jobs.erased()
