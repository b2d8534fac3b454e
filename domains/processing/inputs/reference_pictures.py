"""Reference pictures, which editing models read: decoded, fitted, and kept as long as their jobs need them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import msgspec

from domains.inference.controls import PictureSource
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.input_picture import InputPicture
from domains.inference.kept_file import KeptFile
from domains.inference.references import ResolvedReference
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.jobs.job import Job


def _field(place: int) -> str:
    return f"generation.reference_images[{place}].image"


class ReferencePictures:
    """The reference pictures of a request or a job."""

    def __init__(self, pictures: InputPictures) -> None:
        """`pictures` decodes and stores, and releases the files when their job has ended."""
        self._pictures = pictures

    async def look(self, asked: Generation) -> Sequence[InputPicture]:
        """Decode those of a request. Raises BAD_IMAGE naming the field, or why a blob cannot be read."""
        return [await self._pictures.look(one.image, _field(place)) for place, one in enumerate(asked.references)]

    async def own(self, asked: Generation, read: Sequence[InputPicture], job_id: str) -> None:
        """Keep the files for a job that is about to be stored. Raises if a blob is gone meanwhile."""
        for one, picture in zip(asked.references, read, strict=False):
            await self._pictures.own(one.image, picture, job_id)

    @asynccontextmanager
    async def pixels(self, job: Job, resolved: ResolvedGeneration) -> AsyncGenerator[tuple[KeptFile, ...]]:
        """The files with the pixels that the worker reads, RGB in the sizes of `resolved`, until exit."""
        async with AsyncExitStack() as held:
            found = [
                await held.enter_async_context(self._pictures.for_worker(await self._fitted(job, one, place), job.id))
                for place, one in enumerate(resolved.references)
            ]
            yield tuple(found)

    async def _fitted(self, job: Job, one: ResolvedReference, place: int) -> bytes:
        pixels = await self._pictures.decoded(one.image.blob_id, job.id, _field(place))

        def made() -> bytes:
            from domains.imaging import Fit, fitted

            # The check of the request has refused every other value.
            return fitted(pixels, one.width_px, one.height_px, cast(Fit, one.fit.value)).tobytes()

        return await asyncio.to_thread(made)


def named_by_blobs(asked: Generation, read: Sequence[InputPicture]) -> Generation:
    """The request as it is stored: its pictures are named by blobs."""
    named = tuple(
        msgspec.structs.replace(one, image=PictureSource(blob_id=picture.blob_id))
        for one, picture in zip(asked.references, read, strict=False)
    )
    return msgspec.structs.replace(asked, references=named)
