"""Pictures that generations start from: their files belong to the jobs, and a process of its own decodes them."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from domains.inference import limits
from domains.inference.controls import PictureSource
from domains.inference.generation import ResolvedGeneration
from domains.inference.image_fit import ImageFit
from domains.inference.init_image import InitImage, ResolvedInitImage
from domains.inference.input_picture import FIELD, InputPicture
from domains.inference.kept_file import KeptFile
from domains.inference.masks import InpaintMask, ResolvedMask
from domains.memory.blobs.blob import blob_id
from domains.memory.blobs.store import BlobStore
from domains.processing.inputs.picture_reader import PictureReader
from domains.processing.inputs.zoomed import Zoomed
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import GenerateWork

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Source = InitImage | InpaintMask | PictureSource
"""A picture that a request names."""

MASK_FIELD = "generation.mask.image"
_PIXELS = "application/octet-stream"


class InputFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker reads for a job."""

    picture: KeptFile | None = None
    """Pixels of the picture to start from, RGB in the size of the result. None: the job starts from noise."""
    mask: KeptFile | None = None
    """Which of them to make anew, one byte each. None: all."""


class InputPictures:
    """Decodes input pictures, and keeps their files as long as their jobs need them."""

    def __init__(self, jobs: Jobs, blobs: BlobStore, reader: PictureReader) -> None:
        self._blobs = blobs
        self._reader = reader
        jobs.listeners.append(self._changed)

    async def look(self, init: Source, field: str = FIELD) -> InputPicture:
        """Decode a picture of a request. Raises BAD_IMAGE naming its field, or why its blob cannot be read."""
        data = init.data or await self._reader.file(init.blob_id, field)
        decoder = await self._reader.decoder()
        pixels = await decoder.decode(data, max_pixels=limits.INPUT_AREA_PX2, field=field)
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        return InputPicture(
            blob_id=blob_id(sha256) if init.data else init.blob_id,
            sha256=sha256,
            width_px=pixels.shape[1],
            height_px=pixels.shape[0],
        )

    async def pixels_of(self, source: Source, field: str) -> "NDArray[np.uint8]":
        """The pixels of a request's picture, RGB. Raises as `look`."""
        data = source.data or await self._reader.file(source.blob_id, field)
        return await (await self._reader.decoder()).decode(data, max_pixels=limits.INPUT_AREA_PX2, field=field)

    async def levels_of(self, job: Job, resolved: ResolvedGeneration) -> bytes:
        """`levels` of the mask of a job."""
        assert resolved.mask is not None
        data = await self._reader.file(resolved.mask.blob_id, MASK_FIELD, job.id)
        return await self._fitted(data, resolved, MASK_FIELD)

    async def zoomed(self, job: Job, resolved: ResolvedGeneration, *, needs_levels: bool = False) -> Zoomed:
        """The part of the picture that a job makes. `needs_levels`: whether more than its place depends on the mask."""
        plain = Zoomed(resolved)
        if not (needs_levels or plain.needs_levels):
            return plain
        return Zoomed(resolved, await self.levels_of(job, resolved))

    async def levels(self, mask: InpaintMask, resolved: ResolvedGeneration) -> bytes:
        """The grey values of a request's mask, one byte each, in the size of the result. Raises as `look`."""
        data = mask.data or await self._reader.file(mask.blob_id, MASK_FIELD)
        return await self._fitted(data, resolved, MASK_FIELD)

    async def own(self, init: Source, picture: InputPicture, job_id: str) -> None:
        """Keep the file for a job that is about to be stored: a file of the request itself until the job is deleted, a blob
        until the job ends. Raises if the blob is gone meanwhile."""
        if init.data:
            from domains.imaging import media_type_of

            await self._blobs.keep(init.data, media_type_of(init.data), job_id)
        else:
            self._blobs.hold(picture.blob_id, job_id)

    async def file(self, name: str, field: str, job_id: str = "") -> bytes:
        """The file in a blob of a request, or of a job. Raises as `PictureReader.file`."""
        return await self._reader.file(name, field, job_id)

    def hold(self, name: str, job_id: str) -> None:
        """Keep a blob for a job that is about to be stored. Raises if it is gone meanwhile."""
        self._blobs.hold(name, job_id)

    def disown(self, job_id: str) -> None:
        """Release the files of a job that was not stored."""
        self._blobs.release(job_id)

    @asynccontextmanager
    async def pixels(self, job: Job, resolved: ResolvedGeneration) -> AsyncGenerator[InputFiles]:
        """The files that the worker reads for a job, until exit."""
        async with AsyncExitStack() as held:

            async def file(source: ResolvedInitImage | ResolvedMask | None, field: str) -> KeptFile | None:
                if source is None:
                    return None
                fitted = await self._fitted(await self._reader.file(source.blob_id, field, job.id), resolved, field)
                return await held.enter_async_context(self.for_worker(fitted, job.id))

            yield InputFiles(picture=await file(resolved.init_image, FIELD), mask=await file(resolved.mask, MASK_FIELD))

    @asynccontextmanager
    async def for_worker(self, data: bytes, job_id: str) -> AsyncGenerator[KeptFile]:
        """A file with these pixels, until exit."""
        blob = await self._blobs.keep(data, _PIXELS, job_id)
        try:
            yield KeptFile(path=str(self._blobs.files.path(blob.sha256)), sha256=blob.sha256)
        finally:
            self._blobs.let_go_made(blob.id, job_id)

    async def decoded(self, name: str, job_id: str, field: str, channels: Literal[1, 3, 4] = 3) -> "NDArray[np.uint8]":
        """The pixels in a blob of a job. Raises as `look`."""
        decoder = await self._reader.decoder()
        data = await self._reader.file(name, field, job_id)
        return await decoder.decode(data, max_pixels=limits.INPUT_AREA_PX2, channels=channels, field=field)

    async def _fitted(self, data: bytes, resolved: ResolvedGeneration, field: str) -> bytes:
        """The pixels in the size before growing: RGB, or of a mask one byte each."""
        assert resolved.init_image is not None, "a mask is a part of a picture"
        decoder, fit = await self._reader.decoder(), resolved.init_image.fit or ImageFit.STRETCH
        is_mask = field == MASK_FIELD
        # Decoded without alpha, a mask would be laid over white.
        channels = 4 if is_mask else 3
        pixels = await decoder.decode(data, max_pixels=limits.INPUT_AREA_PX2, channels=channels, field=field)

        def fitted() -> bytes:
            from domains.imaging import Fit, fitted, luma

            # The check of the request has refused every other value.
            read = luma(pixels) if is_mask else pixels
            return fitted(read, *resolved.input_px, cast(Fit, fit.value)).tobytes()

        return await asyncio.to_thread(fitted)

    def _changed(self, job: Job) -> None:
        work = job.work
        if job.state.ended and isinstance(work, GenerateWork):
            for name in dict.fromkeys(work.resolved.input_blobs):
                self._blobs.let_go(name, job.id)
