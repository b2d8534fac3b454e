"""The pictures of one attempt on their way from the worker to the disk and into the journal."""

import asyncio

from domains.inference.outcome import ImageReady
from domains.memory.blobs.store import BlobStore
from domains.processing.jobs.event import GeneratedImage, GenerationResult, OutputReady
from domains.processing.jobs.jobs import Jobs


class Pictures:
    """Stores them in the order in which they come. Those on disk stand in the job's result, whichever attempt made them."""

    def __init__(self, job_id: str, total: int, jobs: Jobs, blobs: BlobStore) -> None:
        """`total`: how many the job is to make."""
        self._job_id = job_id
        self._total = total
        self._jobs = jobs
        self._blobs = blobs
        self._storing: list[asyncio.Task[None]] = []

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
    def made(self) -> tuple[GeneratedImage, ...]:
        """Those on disk, by their index."""
        result = self._jobs.get(self._job_id).result
        return result.images if isinstance(result, GenerationResult) else ()

    async def _keep(self, image: ImageReady, before: asyncio.Task[None] | None) -> None:
        """Store a picture and tell of it, once, after the one before it."""
        if any(one.index == image.index for one in self.made):
            return
        blob = await self._blobs.keep(image.data, image.media_type, self._job_id)
        if before is not None:
            await asyncio.wait([before])
        kept = GeneratedImage(
            index=image.index, seed=image.seed, width_px=image.width_px, height_px=image.height_px, blob=blob
        )
        self._jobs.record(self._job_id, OutputReady(image=kept, total=self._total))
