"""Pictures that guide generations: decoded, made into control maps, and kept as long as their jobs need them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, cast

import msgspec

from domains.inference.control_types import marks_missing
from domains.inference.controls import PictureSource, ResolvedControl, UsedPicture
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.input_picture import InputPicture
from domains.inference.kept_file import ControlFiles, KeptFile
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
        if not resolved.controls:
            yield ()
            return
        async with AsyncExitStack() as held:

            async def kept(data: bytes) -> KeptFile:
                return await held.enter_async_context(self._pictures.for_worker(data, job.id))

            needs = any(map(marks_missing, resolved.controls))
            zoomed = await self._pictures.zoomed(job, resolved, needs_levels=needs)
            hires = resolved.hires_pass
            second_px = None if hires is None else (hires.width_px, hires.height_px)

            async def files(control: ResolvedControl, place: int) -> ControlFiles:
                path = f"generation.controls[{place}]"
                maps = await self._sized(job, zoomed, control, control.image, f"{path}.image", second_px)
                regions: Sequence[bytes] = ()
                if control.region is not None:
                    regions = await self._sized(job, zoomed, control, control.region, f"{path}.region", second_px)
                hidden = await asyncio.to_thread(zoomed.hidden) if marks_missing(control) else None
                first, *second = [
                    ControlFiles(map=await kept(pixels), region=None if region is None else await kept(region))
                    for pixels, region in zip_longest(maps, regions)
                ]
                return msgspec.structs.replace(
                    first,
                    hidden=None if hidden is None else await kept(hidden),
                    enlarged=second[0] if second else None,
                )

            yield tuple([await files(control, place) for place, control in enumerate(resolved.controls)])

    async def _sized(
        self,
        job: Job,
        zoomed: Zoomed,
        control: ResolvedControl,
        picture: UsedPicture,
        field: str,
        second_px: tuple[int, int] | None,
    ) -> Sequence[bytes]:
        """The pixels in the size of what is made, then in that of a second pass, if there is one: of a map, RGB; of a
        region, one byte each."""
        is_map = picture is control.image
        pixels = await self._pictures.decoded(picture.blob_id, job.id, field, channels=3 if is_map else 1)
        made = made_map if is_map else in_size
        sizes = [None] if second_px is None else [None, second_px]
        return [(await asyncio.to_thread(made, pixels, control, zoomed, size)).tobytes() for size in sizes]


def in_size(
    pixels: "NDArray[np.uint8]", control: ResolvedControl, zoomed: Zoomed, size_px: tuple[int, int] | None = None
) -> "NDArray[np.uint8]":
    """A picture of a control in the size of what is made, or of a second pass (`size_px`), which stretches what the first
    one has made. No second pass has a mask to zoom to."""
    from domains.imaging import Fit, fitted
    from domains.imaging.fit import enlarged_as

    # The check of the request has refused every other value.
    fit = cast(Fit, control.fit.value)
    if size_px is not None:
        return enlarged_as(pixels, zoomed.made_px, size_px, fit)
    return zoomed.part(fitted(pixels, *zoomed.whole_px, fit))


def made_map(
    pixels: "NDArray[np.uint8]", control: ResolvedControl, zoomed: Zoomed, size_px: tuple[int, int] | None = None
) -> "NDArray[np.uint8]":
    """The map of a control, from its picture. `size_px`: see `in_size`."""
    from domains.imaging.control_maps import control_map

    whole, given = in_size(pixels, control, zoomed, size_px), control.preprocessing
    return whole if given is None else control_map(given.kind, whole, dict(given.options))


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
