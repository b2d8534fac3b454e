"""The pictures of one attempt on their way from the worker to the disk and into the journal."""

import asyncio

from domains.inference.outcome import ImageReady, LatentsReady
from domains.memory.blobs.store import BlobStore
from domains.processing.jobs.event import GeneratedImage, GenerationResult, LatentFile, OutputReady
from domains.processing.jobs.jobs import Jobs

_MEDIA_TYPE = "application/octet-stream"


class Pictures:
    """Stores pictures in the order of their arrival. The job's result lists the stored pictures of all attempts."""

    def __init__(self, job_id: str, total: int, jobs: Jobs, blobs: BlobStore) -> None:
        """`total`: number of pictures that the job asks for."""
        self._job_id = job_id
        self._total = total
        self._jobs = jobs
        self._blobs = blobs
        self._storing: list[asyncio.Task[None]] = []
        self._latents: dict[int, asyncio.Task[LatentFile]] = {}
        """By index of the picture."""

    def take_latents(self, latents: LatentsReady) -> None:
        """Begin to store the latents of a picture that comes next; never waits."""
        self._latents[latents.index] = asyncio.create_task(self._stored(latents))

    async def _stored(self, latents: LatentsReady) -> LatentFile:
        blob = await self._blobs.keep(latents.data, _MEDIA_TYPE, self._job_id)
        return LatentFile(blob=blob, shape=latents.shape, completed_steps=latents.completed_steps)

    def take(self, image: ImageReady) -> None:
        """Begin to store a picture; never waits."""
        before = self._storing[-1] if self._storing else None
        self._storing.append(asyncio.create_task(self._keep(image, before)))

    async def stored(self) -> None:
        """Wait until all pictures are stored. Raises an error of storing, which fails the job."""
        await asyncio.gather(*self._storing)

    async def settled(self) -> None:
        """Wait until every picture is stored or has failed."""
        await asyncio.gather(*self._storing, return_exceptions=True)

    @property
    def made(self) -> tuple[GeneratedImage, ...]:
        """Stored pictures, ordered by index."""
        result = self._jobs.get(self._job_id).result
        return result.images if isinstance(result, GenerationResult) else ()

    async def _keep(self, image: ImageReady, before: asyncio.Task[None] | None) -> None:
        """Store a picture and record its event after its predecessor's, unless it is stored already."""
        if any(one.index == image.index for one in self.made):
            return
        blob = await self._blobs.keep(image.data, image.media_type, self._job_id)
        latents = self._latents.pop(image.index, None)
        if before is not None:
            await asyncio.wait([before])
        kept = GeneratedImage(
            index=image.index,
            seed=image.seed,
            width_px=image.width_px,
            height_px=image.height_px,
            blob=blob,
            latents=None if latents is None else await latents,
            details=image.details,
        )
        self._jobs.record(self._job_id, OutputReady(image=kept, total=self._total))
