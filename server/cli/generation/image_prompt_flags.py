"""Reads `--image-prompt MODEL=picture,picture` and the flags beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.calls import ids
from server.cli.console.failure import USAGE, CliError
from server.cli.generation.input_image import input_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deviceops.inference.v1.conditioning_pb2 import ImagePrompt
    from server.cli.calls.connection import Connection


@dataclass(frozen=True, kw_only=True)
class ImagePromptWish:
    """An IP-Adapter with its pictures, as the flags say it. The server checks the ranges."""

    model: str
    files: tuple[Path, ...]
    weight: float | None = None
    mode: str = ""


def image_prompts_of(given: Sequence[str], weights: Sequence[float], mode: str) -> tuple[ImagePromptWish, ...]:
    """The image prompts of `--image-prompt MODEL=FILE,FILE`, each with its `--image-prompt-weight`, in their order.

    Raises `CliError` for one without a picture, and for more weights than image prompts.
    """
    if len(weights) > len(given):
        message = f"--image-prompt-weight is given {len(weights)} times for {len(given)} --image-prompt"
        raise CliError(f"{message}; give one for each", USAGE)
    found: list[ImagePromptWish] = []
    for place, one in enumerate(given):
        model, _, names = one.partition("=")
        files = tuple(Path(name) for name in names.split(",") if name)
        if not model or not files:
            message = f"--image-prompt {one} names no model and picture; write --image-prompt MODEL=FILE[,FILE]"
            raise CliError(message, USAGE)
        weight = weights[place] if place < len(weights) else None
        found.append(ImagePromptWish(model=model, files=files, weight=weight, mode=mode))
    return tuple(found)


def image_prompt(connection: Connection, wish: ImagePromptWish) -> ImagePrompt:
    """The image prompt as a request names it. Raises `CliError` for a file that cannot be read."""
    from deviceops.inference.v1 import conditioning_pb2

    mode = wish.mode.upper().replace("-", "_") or "UNSPECIFIED"
    return conditioning_pb2.ImagePrompt(
        model_id=ids.model(connection, wish.model),
        images=[input_image(connection, file) for file in wish.files],
        weight=wish.weight,
        mode=conditioning_pb2.ImagePromptMode.Value(f"IMAGE_PROMPT_MODE_{mode}"),
    )
