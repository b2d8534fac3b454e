"""Makes control maps as the networks see them, for a caller to look at."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from domains.inference.control_types import marks_missing
from domains.inference.generation import Generation, ResolvedGeneration
from domains.memory.blobs.blob import Blob
from domains.memory.blobs.store import BlobStore
from domains.processing.inputs.control_pictures import made_map
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.inputs.zoomed import Zoomed
from domains.processing.shown_pictures import MEDIA_TYPE, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ShownMap(msgspec.Struct, frozen=True, kw_only=True):
    """The map of one control."""

    index: int
    """Its place among the controls."""
    width_px: int
    height_px: int
    blob: Blob
    """The map as a PNG. Pixels that an inpainting map marks as missing (below black) are black in it."""


class ControlPreviews:
    """Makes the maps of requests."""

    def __init__(self, pictures: InputPictures, blobs: BlobStore) -> None:
        self._pictures = pictures
        self._blobs = blobs

    async def of(self, asked: Generation, resolved: ResolvedGeneration) -> Sequence[ShownMap]:
        """One for each control. Raises BAD_IMAGE, STORAGE_FULL."""
        return [await self._shown(asked, resolved, index) for index in range(len(resolved.controls))]

    async def _shown(self, asked: Generation, resolved: ResolvedGeneration, index: int) -> ShownMap:
        control, zoomed = resolved.controls[index], Zoomed(resolved)
        size_px = zoomed.made_px
        field = f"generation.controls[{index}].image"
        pixels = await self._pictures.pixels_of(asked.controls[index].image, field)
        if marks_missing(control) or zoomed.needs_levels:
            assert asked.mask is not None, "a checked request has the mask that its map marks, or into which it zooms"
            zoomed = Zoomed(resolved, await self._pictures.levels(asked.mask, resolved))

        def file() -> bytes:
            from domains.imaging import encode

            found = made_map(pixels, control, zoomed)
            return encode(_marked(found, zoomed) if marks_missing(control) else found, MEDIA_TYPE)

        blob = await shown(self._blobs, await asyncio.to_thread(file))
        return ShownMap(index=index, width_px=size_px[0], height_px=size_px[1], blob=blob)


def _marked(pixels: "NDArray[np.uint8]", zoomed: Zoomed) -> "NDArray[np.uint8]":
    import numpy as np

    hidden = np.frombuffer(zoomed.hidden(), np.uint8).reshape(pixels.shape[:2])
    return np.where(hidden[..., None] > 0, 0, pixels).astype(np.uint8)
