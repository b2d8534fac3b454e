"""Previews on their way into small JPEG files, off the step loop; the newest of each picture only."""

from collections.abc import Iterator
from concurrent.futures import Executor, Future

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from domains import imaging
from domains.inference.generation import ResolvedGeneration
from domains.limits import INLINE_BYTES
from domains.progress import PreviewReady

_QUALITIES = (85, 60, 30, 10)
"""The first that stays within the limit; 85 does for anything but noise."""


class PreviewWriter:
    """Writes the previews of one job."""

    def __init__(self, resolved: ResolvedGeneration, files: Executor) -> None:
        self._every = resolved.previews.every_steps
        self._files = files
        self._writing: dict[int, tuple[int, Future[bytes]]] = {}
        longer = max(resolved.width_px, resolved.height_px)
        scale = min(1.0, resolved.previews.max_edge_px / longer)
        self.size = max(1, round(resolved.height_px * scale)), max(1, round(resolved.width_px * scale))
        """(height, width) in pixels."""

    @property
    def asked(self) -> bool:
        """Whether there are to be any."""
        return self._every > 0

    def wanted(self, step: int) -> bool:
        """Whether to take a preview after this step, counted from 1."""
        return self.asked and step % self._every == 0

    def write(self, step: int, pixels: Tensor) -> None:
        """Begin to encode (pictures, height, width, 3); older previews that nobody fetched are dropped."""
        for index, picture in enumerate(pixels.numpy()):
            self._forget(index)
            self._writing[index] = step, self._files.submit(_file, picture)

    def ready(self) -> Iterator[PreviewReady]:
        """Each preview that is done, once. Raises what its encoding raised."""
        for index, (step, future) in list(self._writing.items()):
            if future.done():
                del self._writing[index]
                height, width = self.size
                yield PreviewReady(
                    image_index=index,
                    step=step,
                    media_type="image/jpeg",
                    width_px=width,
                    height_px=height,
                    data=future.result(),
                )

    def drop(self) -> None:
        """Forget the rest."""
        for index in list(self._writing):
            self._forget(index)

    def _forget(self, index: int) -> None:
        if index in self._writing:
            self._writing.pop(index)[1].cancel()


def _file(pixels: NDArray[np.uint8]) -> bytes:
    data = b""
    for quality in _QUALITIES:
        data = imaging.encode(pixels, "image/jpeg", quality=quality)
        if len(data) <= INLINE_BYTES:
            break
    return data
