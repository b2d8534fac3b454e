"""Deletes by labels: ended jobs with all that they made, and blobs. A dry run returns the same counts beforehand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec

from domains.errors import NotFound
from domains.labels import Labels
from domains.memory.blobs.blob import Blob, BlobState, BlobTier
from domains.memory.blobs.listing import BlobFilter
from domains.memory.blobs.store import BlobStore
from domains.processing.jobs.filter import JobFilter
from domains.processing.jobs.job import ListedJob
from domains.processing.jobs.jobs import Jobs

MAX_IDS = 1000
"""Most ids of one kind in an answer; the counts have no limit."""
_READ_AT_ONCE = 100
"""Jobs read in one portion: about 5 ms, then other calls run."""
_DELETED_AT_ONCE = 20


class Named(msgspec.Struct):
    """Number of things, and their ids."""

    count: int = 0
    ids: list[str] = []
    """Newest first, at most `MAX_IDS`."""

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.ids) < MAX_IDS:
            self.ids.append(name)


class Deletion(msgspec.Struct, kw_only=True):
    """Jobs and blobs that were deleted, or would be in a dry run."""

    jobs: Named = msgspec.field(default_factory=Named)
    blobs: Named = msgspec.field(default_factory=Named)
    """Blobs that have the labels themselves."""
    deferred_blobs: int = 0
    """Number of these blobs that are still read or used."""
    skipped_jobs: Named = msgspec.field(default_factory=Named)
    """Jobs that have not ended."""
    freed_bytes: int = 0


class LabelDeletion:
    """Deletes in portions that never block the event loop for long."""

    def __init__(self, jobs: Jobs, blobs: BlobStore) -> None:
        self._jobs = jobs
        self._blobs = blobs

    async def run(self, labels: Labels) -> Deletion:
        """Delete; each job and each blob completely or not at all."""
        done = Deletion()
        for job_id in await self._ended_jobs(labels, done.skipped_jobs):
            # Another call may have deleted it meanwhile.
            with suppress(NotFound):
                self._jobs.delete(job_id)
                done.freed_bytes += self._blobs.release(job_id)
                done.jobs.add(job_id)
            await _give_way(done.jobs.count)
        for blob in await self._labelled_blobs(labels):
            self._delete(blob, done)
            await _give_way(done.blobs.count)
        await self._jobs.erased()
        return done

    async def plan(self, labels: Labels) -> Deletion:
        """What `run` would do now. Changes nothing."""
        done = Deletion()
        job_ids = await self._ended_jobs(labels, done.skipped_jobs)
        for job_id in job_ids:
            done.jobs.add(job_id)
        gone = frozenset(job_ids)
        done.freed_bytes += sum(blob.size_bytes for blob in self._blobs.left_by(gone))
        for blob in await self._labelled_blobs(labels):
            self._count(blob, done, deferred=self._blobs.is_needed(blob.id, besides=gone))
            await _give_way(done.blobs.count)
        return done

    def _delete(self, blob: Blob, done: Deletion) -> None:
        with suppress(NotFound):
            deleted = self._blobs.delete(blob.id)
            self._count(blob, done, deferred=deleted.deferred)

    @staticmethod
    def _count(blob: Blob, done: Deletion, *, deferred: bool) -> None:
        done.blobs.add(blob.id)
        if deferred:
            done.deferred_blobs += 1
        elif blob.tier is not BlobTier.MAPPED and blob.state is not BlobState.LOST:
            done.freed_bytes += blob.size_bytes

    async def _ended_jobs(self, labels: Labels, others: Named) -> list[str]:
        """Ids of ended jobs with the labels, newest first. Jobs that have not ended are added to `others`."""
        ended: list[str] = []
        async for job in self._labelled_jobs(labels):
            if job.state.ended:
                ended.append(job.id)
            else:
                others.add(job.id)
        return ended

    async def _labelled_jobs(self, labels: Labels) -> AsyncIterator[ListedJob]:
        place: int | None = None
        while True:
            jobs, place = self._jobs.page(JobFilter(labels=labels), place, _READ_AT_ONCE)
            for job in jobs:
                yield job
            if place is None:
                return
            await asyncio.sleep(0)

    async def _labelled_blobs(self, labels: Labels) -> list[Blob]:
        """Blobs with the labels that are not deleted yet, newest first."""
        wanted = BlobFilter(labels=labels)
        return [blob async for blob in self._blobs.each(wanted) if blob.state is not BlobState.DELETING]


async def _give_way(count: int) -> None:
    if count % _DELETED_AT_ONCE == 0:
        await asyncio.sleep(0)
