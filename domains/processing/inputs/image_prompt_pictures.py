"""Pictures of IP-Adapters: decoded, brought to the size that their image encoders read, and kept as long as their jobs need
them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from domains.inference.controls import PictureSource
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.image_prompts import ResolvedImagePrompt
from domains.inference.input_picture import InputPicture
from domains.inference.kept_file import ImagePromptFiles, KeptFile
from domains.inference.resolution.image_prompts import ReadImagePrompt
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.inputs.zoomed import Zoomed
from domains.processing.jobs.job import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ImagePromptPictures:
    """The pictures of all image prompts of a request or a job."""

    def __init__(self, pictures: InputPictures) -> None:
        """`pictures` decodes and stores, and releases the files when their job has ended."""
        self._pictures = pictures

    async def look(self, source: PictureSource | None, field: str) -> InputPicture | None:
        """Decode a picture of a request. Raises BAD_IMAGE naming its field, or why its blob cannot be read."""
        return None if source is None else await self._pictures.look(source, field)

    async def own(self, asked: Generation, read: Sequence[ReadImagePrompt], job_id: str) -> None:
        """Keep the files for a job that is about to be stored. Raises if a blob is gone meanwhile."""
        for prompt, one in zip(asked.image_prompts, read, strict=False):
            looked = [*one.images, *(found for found in (one.region, one.negative_image) if found is not None)]
            for (_, source), picture in zip(prompt.pictures(), looked, strict=True):
                await self._pictures.own(source, picture, job_id)

    @asynccontextmanager
    async def files(self, job: Job, resolved: ResolvedGeneration) -> AsyncGenerator[tuple[ImagePromptFiles, ...]]:
        """The files that the worker reads, until exit."""
        regional = any(one.region is not None for one in resolved.image_prompts)
        zoomed = await self._pictures.zoomed(job, resolved) if regional else Zoomed(resolved)
        async with AsyncExitStack() as held:
            yield tuple(
                [
                    await self._of_prompt(job, zoomed, place, prompt, held)
                    for place, prompt in enumerate(resolved.image_prompts)
                ]
            )

    async def _of_prompt(
        self, job: Job, zoomed: Zoomed, place: int, prompt: ResolvedImagePrompt, held: AsyncExitStack
    ) -> ImagePromptFiles:
        kept: dict[str, KeptFile] = {}
        for name, used in prompt.pictures():
            field = f"generation.image_prompts[{place}].{name}"
            is_region = name == "region"
            pixels = await self._pictures.decoded(used.blob_id, job.id, field, channels=1 if is_region else 3)

            data = await asyncio.to_thread(zoomed.region if is_region else _square(prompt), pixels)
            kept[name] = await held.enter_async_context(self._pictures.for_worker(data, job.id))
        region, negative = kept.pop("region", None), kept.pop("negative_image", None)
        return ImagePromptFiles(images=tuple(kept.values()), region=region, negative_image=negative)


def _square(prompt: ResolvedImagePrompt) -> Callable[["NDArray[np.uint8]"], bytes]:
    """Makes the pixels of the square of a picture that the prompt's encoder reads."""
    from domains.imaging import square, squeezed

    fit = square if prompt.cut else squeezed
    return lambda pixels: fit(pixels, prompt.edge_px).tobytes()


def named_by_blobs(asked: Generation, read: Sequence[ReadImagePrompt]) -> Generation:
    """The request as it is stored: the pictures of its image prompts are named by blobs."""
    prompts = tuple(
        msgspec.structs.replace(
            prompt,
            images=tuple(map(_named, one.images)),
            region=None if one.region is None else _named(one.region),
            negative_image=None if one.negative_image is None else _named(one.negative_image),
        )
        for prompt, one in zip(asked.image_prompts, read, strict=False)
    )
    return msgspec.structs.replace(asked, image_prompts=prompts)


def _named(picture: InputPicture) -> PictureSource:
    return PictureSource(blob_id=picture.blob_id)
