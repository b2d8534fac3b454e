"""Encodes a job's finished pixels into files, off the step loop."""

from collections.abc import Iterator
from concurrent.futures import Executor, Future

import numpy as np
from numpy.typing import NDArray

from domains import imaging
from domains.imaging import DigitalSource
from domains.imaging.masks import Pixels
from domains.inference import manifest
from domains.inference.a1111 import parameters_of
from domains.inference.details import Detailed
from domains.inference.generation import ManifestDetail, ResolvedGeneration
from domains.inference.on_device.scene import Scene
from domains.inference.outcome import ImageReady


class Pictures:
    """Tracks which pictures are decoded, being encoded, and reported. Reports them in order."""

    def __init__(self, resolved: ResolvedGeneration, files: Executor, made: int = 0) -> None:
        """`made`: number of pictures, from the first, that are not made again."""
        self._resolved = resolved
        self._files = files
        self._enqueued = self._told = made
        self._writing: dict[int, Future[bytes]] = {}
        self._details: dict[int, tuple[Detailed, ...]] = {}
        self._awaited: dict[int, Future[Pixels]] = {}
        """Pictures of `write_later`, until their file is reported."""

    @property
    def total(self) -> int:
        """Number of pictures."""
        return len(self._resolved.seeds)

    @property
    def next_to_decode(self) -> int | None:
        """Index of the next picture; None when all are enqueued."""
        return self._enqueued if self._enqueued < len(self._resolved.seeds) else None

    @property
    def all_told(self) -> bool:
        """Whether `ready` has yielded every picture."""
        return self._told == len(self._resolved.seeds)

    def enqueued(self, index: int) -> None:
        """Note that the decoding of a picture is enqueued."""
        self._enqueued = index + 1

    def write(self, index: int, pixels: NDArray[np.uint8], scene: Scene | None = None) -> None:
        """Begin to encode a decoded picture, (height, width, 3). `scene`: the picture that it is a part of."""
        self._writing[index] = self._files.submit(_file, self._resolved, index, pixels, scene)

    def write_later(self, index: int, pixels: Future[Pixels], details: tuple[Detailed, ...]) -> None:
        """Begin to encode a picture as soon as another thread has its pixels. `details`: what was found in it."""
        self._details[index], self._awaited[index] = details, pixels
        self._writing[index] = self._files.submit(encode_later, self._resolved, index, pixels)

    def unwritten(self) -> dict[int, Pixels]:
        """The pixels of those of `write_later` that are not reported. Waits for them."""
        return {index: one.result() for index, one in self._awaited.items()}

    def being_written(self) -> list[Future[bytes]]:
        """Files whose encoding is not finished."""
        return [future for future in self._writing.values() if not future.done()]

    def ready(self) -> Iterator[ImageReady]:
        """Each encoded picture once, in order. Raises the error of its encoding."""
        while (future := self._writing.get(self._told)) is not None and future.done():
            del self._writing[self._told]
            index, self._told = self._told, self._told + 1
            self._awaited.pop(index, None)
            width_px, height_px = self._resolved.result_px
            yield ImageReady(
                index=index,
                seed=self._resolved.seeds[index],
                media_type=self._resolved.output.media_type,
                width_px=width_px,
                height_px=height_px,
                data=future.result(),
                details=self._details.get(index, ()),
            )

    def drop(self) -> None:
        """Forget all pictures that are not reported."""
        for future in self._writing.values():
            future.cancel()
        self._writing.clear()
        self._awaited.clear()


def _file(resolved: ResolvedGeneration, index: int, pixels: NDArray[np.uint8], scene: Scene | None) -> bytes:
    output = resolved.output
    told = output.manifest is not ManifestDetail.NONE
    return imaging.encode(
        pixels if scene is None else scene.finished(pixels),
        output.media_type,
        quality=output.quality,
        lossless=output.lossless,
        manifest=manifest.to_json(manifest.manifest_of(resolved, index)) if told else None,
        parameters=parameters_of(resolved, index) if output.a1111_parameters else None,
        source=_source(resolved) if output.provenance else None,
    )


def encode_later(resolved: ResolvedGeneration, index: int, pixels: Future[Pixels]) -> bytes:
    """The file of a picture, as soon as another thread has its pixels."""
    return _file(resolved, index, pixels.result(), None)


def _source(resolved: ResolvedGeneration) -> DigitalSource:
    if resolved.init_image is None:
        return DigitalSource.TRAINED_ALGORITHMIC_MEDIA
    return DigitalSource.COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA
