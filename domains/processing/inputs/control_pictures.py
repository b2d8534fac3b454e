"""Pictures that guide generations: decoded, made into control maps, and kept as long as their jobs need them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, cast

import msgspec

from domains.inference.controls import PictureSource, ResolvedControl, UsedPicture
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.input_picture import InputPicture
from domains.inference.kept_file import ControlFiles, KeptFile
from domains.inference.preprocessors import INPAINT
from domains.inference.resolution.controls import ReadControl
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.inputs.zoomed import Zoomed
from domains.processing.jobs.job import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ControlPictures:
    """The pictures of all controls of a request or a job."""

    def __init__(self, pictures: InputPictures) -> None:
        """`pictures` decodes and stores, and releases the files when their job has ended."""
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
            zoomed = await self._zoomed(job, resolved)
            for place, control in enumerate(resolved.controls):
                path = f"generation.controls[{place}]"
                pixels = await self._pixels(job, zoomed, control, control.image, f"{path}.image")
                region = None
                if control.region is not None:
                    region = await kept(await self._pixels(job, zoomed, control, control.region, f"{path}.region"))
                hidden = await kept(await asyncio.to_thread(zoomed.hidden)) if marks(control) else None
                found.append(ControlFiles(map=await kept(pixels), region=region, hidden=hidden))
            yield tuple(found)

    async def _zoomed(self, job: Job, resolved: ResolvedGeneration) -> Zoomed:
        """The part of the picture that is made, with the mask if a map depends on it."""
        plain = Zoomed(resolved)
        if not resolved.controls or not (plain.needs_levels or any(map(marks, resolved.controls))):
            return plain
        return Zoomed(resolved, await self._pictures.levels_of(job, resolved))

    async def _pixels(
        self, job: Job, zoomed: Zoomed, control: ResolvedControl, picture: UsedPicture, field: str
    ) -> bytes:
        """The pixels in the size of what is made: of a map, RGB; of a region, one byte each."""
        is_map = picture is control.image
        pixels = await self._pictures.decoded(picture.blob_id, job.id, field, channels=3 if is_map else 1)
        made = await asyncio.to_thread(made_map if is_map else in_size, pixels, control, zoomed)
        return made.tobytes()


def in_size(pixels: "NDArray[np.uint8]", control: ResolvedControl, zoomed: Zoomed) -> "NDArray[np.uint8]":
    """A picture of a control in the size of what is made."""
    from domains.imaging import Fit, fitted

    # The check of the request has refused every other value.
    return zoomed.part(fitted(pixels, *zoomed.whole_px, cast(Fit, control.fit.value)))


def made_map(pixels: "NDArray[np.uint8]", control: ResolvedControl, zoomed: Zoomed) -> "NDArray[np.uint8]":
    """The map of a control, from its picture."""
    from domains.imaging.control_maps import control_map

    whole, given = in_size(pixels, control, zoomed), control.preprocessing
    return whole if given is None else control_map(given.kind, whole, dict(given.options))


def marks(control: ResolvedControl) -> bool:
    """Whether its map marks the masked part as missing."""
    return control.preprocessing is not None and control.preprocessing.kind == INPAINT


def named_by_blobs(asked: Generation, read: Sequence[ReadControl]) -> Generation:
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
