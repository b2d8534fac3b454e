"""Encodes previews into small JPEG files, off the step loop; keeps the newest of each picture only."""

from collections.abc import Iterator
from concurrent.futures import Executor, Future

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from domains import imaging
from domains.inference.generation import Previews, ResolvedGeneration
from domains.limits import INLINE_BYTES
from domains.progress import PreviewReady

_QUALITIES = (85, 60, 30, 10)
"""The first quality that stays within the limit is used; 85 does for everything but noise."""


class PreviewWriter:
    """Writes the previews of one job."""

    size: tuple[int, int]
    """(height, width) in pixels of new previews."""

    def __init__(self, resolved: ResolvedGeneration, files: Executor) -> None:
        self._resolved = resolved
        self._files = files
        self._writing: dict[int, tuple[int, Future[bytes]]] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        """(height, width) of previews that are being encoded, by picture."""
        self.show(resolved.previews)

    def enter(self, resolved: ResolvedGeneration) -> None:
        """Show the pictures of another pass, with the same previews as before."""
        self._resolved = resolved
        self.show(self._shown)

    def show(self, previews: Previews) -> None:
        """Make these previews from now on."""
        self._shown, self._every = previews, previews.every_steps
        width, height = self._resolved.width_px, self._resolved.height_px
        scale = min(1.0, previews.max_edge_px / max(width, height))
        self.size = max(1, round(height * scale)), max(1, round(width * scale))

    @property
    def asked(self) -> bool:
        """Whether previews are wanted."""
        return self._every > 0

    def is_own(self, step: int) -> bool:
        """Whether the job itself asked for a preview after this step; otherwise its watchers did."""
        every = self._resolved.previews.every_steps
        return every > 0 and step % every == 0

    def wanted(self, step: int) -> bool:
        """Whether to make a preview after this step, counted from 1."""
        return self.asked and step % self._every == 0

    def write(self, step: int, pixels: Tensor) -> None:
        """Begin to encode (pictures, height, width, 3); drops older previews that were not fetched."""
        for index, picture in enumerate(pixels.numpy()):
            self._forget(index)
            self._writing[index] = step, self._files.submit(_file, picture)
            self._sizes[index] = picture.shape[0], picture.shape[1]

    def ready(self) -> Iterator[PreviewReady]:
        """Each encoded preview, once. Raises the error of its encoding."""
        for index, (step, future) in list(self._writing.items()):
            if future.done():
                del self._writing[index]
                height, width = self._sizes[index]
                yield PreviewReady(
                    image_index=index,
                    step=step,
                    media_type="image/jpeg",
                    width_px=width,
                    height_px=height,
                    data=future.result(),
                )

    def drop(self) -> None:
        """Forget the previews that are being encoded."""
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
