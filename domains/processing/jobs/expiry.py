"""Forgets jobs that were kept long enough, with their blobs, and blobs whose time has come."""

import asyncio

import structlog

from domains.memory.blobs.store import BlobStore
from domains.processing.jobs.jobs import Jobs

_AT_ONCE = 20
"""Jobs: about 5 ms."""

_log = structlog.get_logger()


class Expiry:
    """Looks now and then, for as long as the server runs."""

    def __init__(self, jobs: Jobs, blobs: BlobStore) -> None:
        self._jobs = jobs
        self._blobs = blobs

    async def keep_up(self, every_s: float) -> None:
        """Until cancelled. What goes wrong (a full disk) is tried again the next time."""
        while True:
            try:
                await self.expire()
            except Exception:
                _log.exception("what has expired could not be forgotten")
            await asyncio.sleep(every_s)

    async def expire(self) -> None:
        """All that has expired by now; others have their turn in between."""
        while job_ids := self._jobs.expired(_AT_ONCE):
            for job_id in job_ids:
                self._jobs.delete(job_id)
                self._blobs.release(job_id)
            await asyncio.sleep(0)
        self._blobs.collect()
