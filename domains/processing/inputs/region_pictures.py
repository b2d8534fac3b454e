"""Masks of regions: decoded, brought to the size of the pictures, and kept as long as their jobs need them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from domains.inference.controls import PictureSource
from domains.inference.generation import Generation, ResolvedGeneration
from domains.inference.input_picture import InputPicture
from domains.inference.kept_file import KeptFile
from domains.inference.regions import ResolvedRegion
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.inputs.zoomed import Zoomed
from domains.processing.jobs.job import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RegionPictures:
    """The masks of all regions of a request or a job."""

    def __init__(self, pictures: InputPictures) -> None:
        """`pictures` decodes and stores, and releases the files when their job has ended."""
        self._pictures = pictures

    async def looked(self, asked: Generation) -> list[InputPicture | None]:
        """The masks of a request, decoded; None for a rectangle. Raises BAD_IMAGE naming the field, or why a blob cannot be
        read."""
        return [
            None if one.mask is None else await self._pictures.look(one.mask, _field(place))
            for place, one in enumerate(asked.regions)
        ]

    async def own(self, asked: Generation, read: Sequence[InputPicture | None], job_id: str) -> None:
        """Keep the files for a job that is about to be stored. Raises if a blob is gone meanwhile."""
        for region, one in zip(asked.regions, read, strict=False):
            if region.mask is not None and one is not None:
                await self._pictures.own(region.mask, one, job_id)

    @asynccontextmanager
    async def files(self, job: Job, resolved: ResolvedGeneration) -> AsyncGenerator[tuple[KeptFile | None, ...]]:
        """The files that the worker reads, until exit. None: a rectangle of the whole picture."""
        if not resolved.regions:
            yield ()
            return
        zoomed = await self._pictures.zoomed(job, resolved)
        async with AsyncExitStack() as held:

            async def kept(region: ResolvedRegion, place: int) -> KeptFile | None:
                if region.mask is None and not zoomed.needs_levels:
                    return None
                data = await self._pixels(job, zoomed, region, _field(place))
                return await held.enter_async_context(self._pictures.for_worker(data, job.id))

            yield tuple([await kept(one, place) for place, one in enumerate(resolved.regions)])

    async def _pixels(self, job: Job, zoomed: Zoomed, region: ResolvedRegion, field: str) -> bytes:
        if region.mask is None:
            return await asyncio.to_thread(lambda: zoomed.region(_drawn(region, zoomed.whole_px)))
        pixels = await self._pictures.decoded(region.mask.blob_id, job.id, field, channels=1)
        return await asyncio.to_thread(zoomed.region, pixels)


def _drawn(region: ResolvedRegion, size_px: tuple[int, int]) -> "NDArray[np.uint8]":
    """A rectangle in a picture of this size (width, height), white on black."""
    import numpy as np

    box = region.rectangle
    assert box is not None, "a region has a mask or a rectangle"
    found = np.zeros((size_px[1], size_px[0]), np.uint8)
    found[box.top_px : box.top_px + box.height_px, box.left_px : box.left_px + box.width_px] = 255
    return found


def named_by_blobs(asked: Generation, read: Sequence[InputPicture | None]) -> Generation:
    """The request as it is stored: the masks of its regions are named by blobs."""
    regions = tuple(
        region if one is None else msgspec.structs.replace(region, mask=PictureSource(blob_id=one.blob_id))
        for region, one in zip(asked.regions, read, strict=False)
    )
    return msgspec.structs.replace(asked, regions=regions)


def _field(place: int) -> str:
    return f"generation.regions[{place}].mask"
