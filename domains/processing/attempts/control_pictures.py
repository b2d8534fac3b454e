"""Pictures that guide generations: decoded, made into control maps, and kept as long as their jobs need them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import msgspec

from domains.inference.control_resolution import ReadControl
from domains.inference.controls import PictureSource, ResolvedControl, UsedPicture
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.input_picture import InputPicture
from domains.inference.kept_file import ControlFiles, KeptFile
from domains.processing.attempts.input_pictures import InputPictures
from domains.processing.jobs.job import Job


class ControlPictures:
    """The pictures of all controls of a request or a job."""

    def __init__(self, pictures: InputPictures) -> None:
        """`pictures` decodes and stores, and lets go of the files when their job has ended."""
        self._pictures = pictures

    async def look(self, source: PictureSource, field: str) -> InputPicture:
        """Decode a picture of a request. Raises BAD_IMAGE naming its field, or why its blob cannot be read."""
        return await self._pictures.look(source, field)

    async def own(self, asked: Generation, read: Sequence[ReadControl], job_id: str) -> None:
        """Keep the files for a job that is about to be stored. Raises if a blob is gone meanwhile."""
        for control, one in zip(asked.controls, read, strict=False):
            await self._pictures.own(control.image, one.image, job_id)
            if control.region is not None and one.region is not None:
                await self._pictures.own(control.region, one.region, job_id)

    @asynccontextmanager
    async def maps(self, job: Job, resolved: ResolvedGeneration) -> AsyncGenerator[tuple[ControlFiles, ...]]:
        """The files with the maps that the worker reads, until exit."""
        async with AsyncExitStack() as held:

            async def kept(data: bytes) -> KeptFile:
                return await held.enter_async_context(self._pictures.for_worker(data, job.id))

            found: list[ControlFiles] = []
            for place, control in enumerate(resolved.controls):
                path = f"generation.controls[{place}]"
                pixels = await self._pixels(job, resolved, control, control.image, f"{path}.image")
                region = None
                if control.region is not None:
                    region = await kept(await self._pixels(job, resolved, control, control.region, f"{path}.region"))
                found.append(ControlFiles(map=await kept(pixels), region=region))
            yield tuple(found)

    async def _pixels(
        self, job: Job, resolved: ResolvedGeneration, control: ResolvedControl, picture: UsedPicture, field: str
    ) -> bytes:
        """The pixels in the result's size: of a map, RGB; of a region, one byte each."""
        is_map = picture is control.image
        pixels = await self._pictures.decoded(picture.blob_id, job.id, field, channels=3 if is_map else 1)

        def made() -> bytes:
            from domains.imaging import Fit, fitted
            from domains.imaging.control_maps import control_map

            # The check of the request has refused every other value.
            whole = fitted(pixels, resolved.width_px, resolved.height_px, cast(Fit, control.fit.value))
            given = control.preprocessing
            if not is_map or given is None:
                return whole.tobytes()
            return control_map(given.kind, whole, dict(given.options)).tobytes()

        return await asyncio.to_thread(made)


def without_bytes(asked: Generation, read: Sequence[ReadControl]) -> Generation:
    """The request as it is stored: the pictures of its controls are named by blobs."""
    controls = tuple(
        msgspec.structs.replace(
            control,
            image=_named(one.image),
            region=None if one.region is None else _named(one.region),
        )
        for control, one in zip(asked.controls, read, strict=False)
    )
    return msgspec.structs.replace(asked, controls=controls)


def _named(picture: InputPicture) -> PictureSource:
    return PictureSource(blob_id=picture.blob_id)
