"""Reads the flags of passes beside the first one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.cli.console.failure import USAGE, CliError

if TYPE_CHECKING:
    from deviceops.inference.v1.passes_pb2 import DetailPass, HiresPass, RefinerPass


@dataclass(frozen=True, kw_only=True)
class HiresWish:
    """A second pass at a larger size, as the flags say it. The server checks the ranges."""

    scale: float
    strength: float | None = None
    steps: int | None = None
    by: str = ""
    """`latents` or `pixels`; empty: the server's default."""
    upscaler: str = ""
    """The model that enlarges. Empty: a filter does."""


def hires_of(
    scale: float | None, strength: float | None, steps: int | None, by: str | None, upscaler: str = ""
) -> HiresWish | None:
    """The second pass. Raises `CliError` for its other flags without a scale, and for two ways to enlarge."""
    if scale is None and (upscaler or any(one is not None for one in (strength, steps, by))):
        flags = "--hires-strength, --hires-steps, --hires-by and --hires-upscaler"
        raise CliError(f"{flags} say how a picture grows; give --hires 2", USAGE)
    if by and upscaler:
        raise CliError("--hires-upscaler enlarges pixels by a model, and --hires-by by a filter; give one", USAGE)
    if scale is None:
        return None
    return HiresWish(scale=scale, strength=strength, steps=steps, by=by or "", upscaler=upscaler)


@dataclass(frozen=True, kw_only=True)
class DetailWish:
    """A pass over what a detector finds, as the flags say it. The server checks the ranges."""

    model: str
    """The detector."""
    prompt: str = ""
    strength: float | None = None
    steps: int | None = None


def details_of(
    models: Sequence[str], prompt: str = "", strength: float | None = None, steps: int | None = None
) -> tuple[DetailWish, ...]:
    """A pass for each detector. Raises `CliError` for the other flags without one."""
    if not models and (prompt or strength is not None or steps is not None):
        flags = "--detail-prompt, --detail-strength and --detail-steps"
        raise CliError(f"{flags} say how finds are made anew; give --detail MODEL", USAGE)
    return tuple(DetailWish(model=one, prompt=prompt, strength=strength, steps=steps) for one in models)


def detail_passes(wishes: Sequence[DetailWish]) -> list[DetailPass]:
    """The passes as a request names them."""
    from deviceops.inference.v1 import passes_pb2

    return [
        passes_pb2.DetailPass(detector_model_id=one.model, prompt=one.prompt, strength=one.strength, steps=one.steps)
        for one in wishes
    ]


def refiner_pass(model: str, start: float | None) -> RefinerPass | None:
    """The refiner as a request names it. None: there is none."""
    from deviceops.inference.v1 import passes_pb2

    return passes_pb2.RefinerPass(model_id=model, start_ratio=start) if model else None


def hires_pass(wish: HiresWish | None) -> HiresPass | None:
    """The second pass as a request names it."""
    from deviceops.common.v1 import image_pb2
    from deviceops.inference.v1 import passes_pb2

    if wish is None:
        return None
    message = passes_pb2.HiresPass(scale=wish.scale, strength=wish.strength, steps=wish.steps)
    if wish.by == "pixels":
        message.pixel_filter = image_pb2.RESAMPLING_FILTER_LANCZOS
    if wish.upscaler:
        message.upscaler_model_id = wish.upscaler
    return message
