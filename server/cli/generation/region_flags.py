"""Reads `--region WHERE=PROMPT` and the flag beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.console.failure import USAGE, CliError
from server.cli.generation.input_image import input_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deviceops.inference.v1.conditioning_pb2 import RegionalPrompt
    from server.cli.calls.connection import Connection

_RECTANGLE = re.compile(r"(\d+),(\d+),(\d+),(\d+)")


@dataclass(frozen=True, kw_only=True)
class RegionWish:
    """A part of the picture with its prompt, as the flags say it. The server checks the ranges."""

    prompt: str
    rectangle: tuple[int, int, int, int] | None = None
    """Left, top, width and height, px. None: `mask` says where."""
    mask: Path | None = None
    weight: float | None = None


def regions_of(given: Sequence[str], weights: Sequence[float]) -> tuple[RegionWish, ...]:
    """The regions of `--region WHERE=PROMPT`, each with its `--region-weight`, in their order.

    Raises `CliError` for one without a place, and for more weights than regions.
    """
    if len(weights) > len(given):
        message = f"--region-weight is given {len(weights)} times for {len(given)} --region; give one for each"
        raise CliError(message, USAGE)
    found: list[RegionWish] = []
    for place, one in enumerate(given):
        where, equals, prompt = one.partition("=")
        if not where or not equals:
            message = (
                f"--region {one} names no place; write --region LEFT,TOP,WIDTH,HEIGHT=PROMPT or --region FILE=PROMPT"
            )
            raise CliError(message, USAGE)
        weight = weights[place] if place < len(weights) else None
        found.append(_region(where, prompt, weight))
    return tuple(found)


def _region(where: str, prompt: str, weight: float | None) -> RegionWish:
    if (box := _RECTANGLE.fullmatch(where)) is None:
        return RegionWish(prompt=prompt, mask=Path(where), weight=weight)
    left, top, width, height = map(int, box.groups())
    return RegionWish(prompt=prompt, rectangle=(left, top, width, height), weight=weight)


def region_input(connection: Connection, wish: RegionWish) -> RegionalPrompt:
    """The region as a request names it. Raises `CliError` for a file that cannot be read."""
    from deviceops.inference.v1 import conditioning_pb2
    from deviceops.postprocessing.v1 import postprocessing_pb2

    message = conditioning_pb2.RegionalPrompt(prompt=wish.prompt, weight=wish.weight)
    if wish.mask is not None:
        message.mask.CopyFrom(input_image(connection, wish.mask))
    elif wish.rectangle is not None:
        left, top, width, height = wish.rectangle
        box = postprocessing_pb2.PixelBox(left_px=left, top_px=top, width_px=width, height_px=height)
        message.rectangle.CopyFrom(box)
    return message
