"""The pictures of one attempt on their way from the worker to the disk and into the journal."""

import asyncio

from domains.inference.outcome import ImageReady
from domains.memory.blobs.store import BlobStore
from domains.processing.job import GenerateWork, Job
from domains.processing.job_event import GeneratedImage, OutputReady
from domains.processing.jobs import Jobs


class JobPictures:
    """One for each attempt; knows those of earlier attempts too."""

    def __init__(self, job: Job, jobs: Jobs, blobs: BlobStore) -> None:
        self._job = job
        self._jobs = jobs
        self._blobs = blobs
        entries = jobs.live(job.id).journal.after(0)
        told = [entry.value.image for entry in entries if isinstance(entry.value, OutputReady)]
        self._kept: dict[int, GeneratedImage] = {image.index: image for image in told}
        self._storing: list[asyncio.Task[None]] = []
        """In the order in which they came."""

    def take(self, image: ImageReady) -> None:
        """Begin to store a picture; never waits."""
        before = self._storing[-1] if self._storing else None
        self._storing.append(asyncio.create_task(self._keep(image, before)))

    async def stored(self) -> None:
        """All pictures are on disk; raises why the first that is not could not be stored, which is the job's failure."""
        await asyncio.gather(*self._storing)

    async def settled(self) -> None:
        """None is on its way any more, stored or not."""
        await asyncio.gather(*self._storing, return_exceptions=True)

    @property
    def kept(self) -> tuple[GeneratedImage, ...]:
        """Those on disk, by their index."""
        return tuple(self._kept[index] for index in sorted(self._kept))

    async def _keep(self, image: ImageReady, before: asyncio.Task[None] | None) -> None:
        """Store a picture and tell of it, once, whichever attempt made it, and after the one before it."""
        if image.index in self._kept:
            return
        blob = await self._blobs.keep(image.data, image.media_type, self._job.id)
        if before is not None:
            await asyncio.wait([before])
        kept = GeneratedImage(
            index=image.index, seed=image.seed, width_px=image.width_px, height_px=image.height_px, blob=blob
        )
        self._kept[image.index] = kept
        self._jobs.record(self._job.id, OutputReady(image=kept, total=self._total()))

    def _total(self) -> int:
        return len(self._job.work.resolved.seeds) if isinstance(self._job.work, GenerateWork) else 0
