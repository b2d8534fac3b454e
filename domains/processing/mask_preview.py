"""Looks at a mask as it is applied: how much it covers, in how many regions, and how ragged its edges are."""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from domains.inference.generation import ResolvedGeneration
from domains.inference.masks import InpaintMask, ResolvedMask
from domains.memory.blobs.blob import Blob
from domains.memory.blobs.store import BlobStore
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.shown_pictures import MEDIA_TYPE, shown

if TYPE_CHECKING:
    from domains.imaging.masks import Mask


class MaskAnalysis(msgspec.Struct, frozen=True, kw_only=True):
    """What a mask covers."""

    painted_ratio: float
    """Share of the picture that is made anew, 0..1, after growing and inverting."""
    region_count: int
    edge_density_ratio: float
    """Edge pixels per painted pixel, 0..1."""
    width_px: int
    height_px: int
    blob: Blob
    """The mask with its ramp, as a grey PNG."""


class MaskPreviews:
    """Reads masks of requests."""

    def __init__(self, pictures: InputPictures, blobs: BlobStore) -> None:
        self._pictures = pictures
        self._blobs = blobs

    async def of(self, asked: InpaintMask, resolved: ResolvedGeneration) -> MaskAnalysis | None:
        """What the mask of a generation covers. None: the generation has none. Raises BAD_IMAGE, STORAGE_FULL."""
        if resolved.mask is None:
            return None
        levels = await self._pictures.levels(asked, resolved)
        told, file = await asyncio.to_thread(_looked_at, levels, resolved.mask, resolved.result_px)
        blob = await shown(self._blobs, file)
        painted, regions, edges = told
        width_px, height_px = resolved.result_px
        return MaskAnalysis(
            painted_ratio=painted,
            region_count=regions,
            edge_density_ratio=edges,
            width_px=width_px,
            height_px=height_px,
            blob=blob,
        )


def _looked_at(levels: bytes, mask: ResolvedMask, size_px: tuple[int, int]) -> tuple[tuple[float, int, float], bytes]:
    """The figures, and the file of the mask with its ramp."""
    import numpy as np

    from domains.imaging import encode
    from domains.imaging.masks import grown, ramp

    width_px, height_px = size_px
    grey = np.frombuffer(levels, np.uint8).reshape(height_px, width_px)
    whole = grown(grey, mask.dilation_px, invert=mask.invert)
    share = ramp(whole, mask.blend.value, mask.blur_px)
    return figures(whole), encode(np.rint(share * 255).astype(np.uint8), MEDIA_TYPE)


def figures(mask: "Mask") -> tuple[float, int, float]:
    """The painted share, the number of regions, and edge pixels per painted pixel."""
    import cv2
    import numpy as np

    painted = (mask > 0).astype(np.uint8)
    count = int(painted.sum())
    if not count:
        return 0.0, 0, 0.0
    regions = cv2.connectedComponents(painted, connectivity=8)[0] - 1
    # The picture's own edge is no edge of a region.
    inner = cv2.erode(painted, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    return count / painted.size, regions, (count - int(inner.sum())) / count
