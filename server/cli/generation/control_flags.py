"""Reads `--control MODEL=picture` and the flags beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.calls import ids
from server.cli.console.failure import USAGE, CliError
from server.cli.generation.input_image import input_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deviceops.inference.v1.conditioning_pb2 import ControlInput
    from server.cli.calls.connection import Connection


@dataclass(frozen=True, kw_only=True)
class ControlWish:
    """A picture that guides the layout, as the flags say it. The server checks the ranges."""

    model: str
    file: Path
    kind: str = ""
    """How to make the map from the picture: `canny`, `tile` … Empty: the picture is the map."""
    weight: float | None = None
    type: str = ""
    """What the map is, for a ControlNet that knows several types. Empty: its only one."""
    fit: str = ""


def controls_of(
    given: Sequence[str], kinds: Sequence[str], weights: Sequence[float], fit: str, types: Sequence[str] = ()
) -> tuple[ControlWish, ...]:
    """The controls of `--control MODEL=PICTURE`, each with its `--control-from`, `--control-weight` and `--control-type`.

    Raises `CliError` for a control without a picture, and for more kinds, weights or types than controls.
    """
    for name, some in (("--control-from", kinds), ("--control-weight", weights), ("--control-type", types)):
        if len(some) > len(given):
            raise CliError(f"{name} is given {len(some)} times for {len(given)} --control; give one for each", USAGE)
    found: list[ControlWish] = []
    for place, one in enumerate(given):
        model, _, file = one.partition("=")
        if not model or not file:
            raise CliError(f"--control {one} names no model and picture; write --control MODEL=FILE", USAGE)
        kind = kinds[place] if place < len(kinds) else ""
        weight = weights[place] if place < len(weights) else None
        found.append(
            ControlWish(
                model=model,
                file=Path(file),
                kind="" if kind == "map" else kind,
                weight=weight,
                type=types[place] if place < len(types) else "",
                fit=fit,
            )
        )
    return tuple(found)


def control_input(connection: Connection, wish: ControlWish) -> ControlInput:
    """The control as a request names it. Raises `CliError` for a file that cannot be read, or an unknown kind of map."""
    from deviceops.common.v1 import image_pb2
    from deviceops.inference.v1 import conditioning_pb2

    message = conditioning_pb2.ControlInput(
        model_id=ids.model(connection, wish.model),
        image=input_image(connection, wish.file),
        weight=wish.weight,
        control_type=wish.type,
        fit=image_pb2.ImageFit.Value(f"IMAGE_FIT_{wish.fit.upper() or 'UNSPECIFIED'}"),
    )
    if wish.kind:
        known = [field.name for field in conditioning_pb2.ControlPreprocessing.DESCRIPTOR.fields]
        kind = wish.kind.replace("-", "_")
        if kind not in known:
            raise CliError(f"--control-from {wish.kind} is no way to make a map; known: {', '.join(known)}, map", USAGE)
        getattr(message.preprocessing, kind).SetInParent()
    return message
