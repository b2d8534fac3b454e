"""What a generation reads beside its models: kept for its job when it is stored, given to the worker when it runs."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.resolution.request_files import RequestFiles
from domains.processing.inputs import control_pictures, image_prompt_pictures, reference_pictures, region_pictures
from domains.processing.inputs.control_pictures import ControlPictures
from domains.processing.inputs.image_prompt_pictures import ImagePromptPictures
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.inputs.latent_files import LatentFiles
from domains.processing.inputs.reference_pictures import ReferencePictures
from domains.processing.inputs.region_pictures import RegionPictures
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds.entry import Supplies


class GenerationFiles:
    """The inputs of generations, by what they are for."""

    def __init__(self, pictures: InputPictures) -> None:
        self.pictures = pictures
        """Pictures to start from, and masks."""
        self.latents = LatentFiles(pictures)
        self.controls = ControlPictures(pictures)
        self.image_prompts = ImagePromptPictures(pictures)
        self.regions = RegionPictures(pictures)
        self.references = ReferencePictures(pictures)

    async def own(self, asked: Generation, read: RequestFiles, job_id: str) -> None:
        """Keep the files for a job that is about to be stored. Raises if a blob is gone meanwhile."""
        for source, picture in ((asked.init_image, read.picture), (asked.mask, read.mask)):
            if source is not None and picture is not None:
                await self.pictures.own(source, picture, job_id)
        if asked.init_latents is not None and read.latents is not None:
            self.latents.own(asked.init_latents, job_id)
        await self.controls.own(asked, read.controls, job_id)
        await self.image_prompts.own(asked, read.image_prompts, job_id)
        await self.regions.own(asked, read.regions, job_id)
        await self.references.own(asked, read.references, job_id)

    @asynccontextmanager
    async def supplied(self, job: Job, resolved: ResolvedGeneration, supplies: Supplies) -> AsyncGenerator[Supplies]:
        """The supplies with the files that the worker reads, until exit."""
        async with AsyncExitStack() as held:
            start = await held.enter_async_context(self.pictures.pixels(job, resolved))
            yield msgspec.structs.replace(
                supplies,
                picture=start.picture,
                mask=start.mask,
                latents=await held.enter_async_context(self.latents.file(job, resolved)),
                controls=await held.enter_async_context(self.controls.maps(job, resolved)),
                image_prompts=await held.enter_async_context(self.image_prompts.files(job, resolved)),
                regions=await held.enter_async_context(self.regions.files(job, resolved)),
                references=await held.enter_async_context(self.references.pixels(job, resolved)),
            )


def named_by_blobs(asked: Generation, read: RequestFiles) -> Generation:
    """The request as it is stored: without bytes, its pictures named by blobs."""
    for name, picture in (("init_image", read.picture), ("mask", read.mask)):
        if picture is not None:
            source = msgspec.structs.replace(getattr(asked, name), data=b"", blob_id=picture.blob_id)
            asked = msgspec.structs.replace(asked, **{name: source})
    asked = control_pictures.named_by_blobs(asked, read.controls)
    asked = image_prompt_pictures.named_by_blobs(asked, read.image_prompts)
    asked = region_pictures.named_by_blobs(asked, read.regions)
    return reference_pictures.named_by_blobs(asked, read.references)
