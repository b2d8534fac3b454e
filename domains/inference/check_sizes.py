"""Finds the faults of what a denoiser is told about sizes."""

from collections.abc import Iterator

from domains.errors import Violation
from domains.inference.bounds import within
from domains.inference.size_conditioning import SizeConditioning, SizePx

_PATH = "size_conditioning"


def size_violations(asked: SizeConditioning | None) -> Iterator[Violation]:
    """Values outside their ranges."""
    if asked is None:
        return
    yield from _size("original_size", asked.original_px)
    yield from _size("target_size", asked.target_px)
    yield from within(f"{_PATH}.crop_left_px", asked.crop_left_px)
    yield from within(f"{_PATH}.crop_top_px", asked.crop_top_px)


def _size(name: str, size: SizePx | None) -> Iterator[Violation]:
    for edge, value in zip(("width_px", "height_px"), size or (), strict=False):
        yield from within(f"{_PATH}.{name}.{edge}", value)
