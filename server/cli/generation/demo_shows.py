"""How `deviceops demo` changes its pictures: in another style, mirrored, and with a part made anew."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.console.failure import USAGE, CliError
from server.cli.generation.request import LoraWish, Wish

if TYPE_CHECKING:
    from PIL.Image import Image

    from deviceops.common.v1.image_pb2 import ImageInput
    from server.cli.calls.connection import Connection

COMPANIONS = Path(__file__).parents[3] / "domains" / "model" / "companions"
"""Folder of the models that were trained for the embedded model (`tools/demo_model/companions.py`)."""
_STYLE, _EDGES = "emoji-high-contrast", "emoji-canny"
_NEW_EYES = {
    "neutral face on a blue background": "cool face on a blue background",
    "grinning face on a green background": "laughing face on a green background",
    "neutral face on a yellow background": "nerd face on a yellow background",
}
"""By the prompt of a picture: that of its upper part. The model knows whole things alone, and most parts of two do not meet;
those of faces do."""


@dataclass(frozen=True)
class Show:
    """One way to change a picture."""

    name: str
    changed: Callable[[Wish, Path], Wish]
    """Returns the changed request for the request that made a picture, and the picture's file."""
    needs: str = ""
    """A model's id. Empty: the embedded model alone."""
    prompts: tuple[str, ...] = ()
    """Of the three pictures that it changes. Empty: those of any demo."""


def check_there(connection: Connection, shows: Sequence[Show]) -> None:
    """Raise `CliError` if the server lacks a model that a show needs. Asks for a scan first if one is
    missing, because a server that was just started may not have scanned its folders yet."""
    from deviceops.model.v1 import model_service_pb2 as pb

    if lacking(connection, shows):
        for _ in connection.model.ScanModels(pb.ScanModelsRequest()):
            continue
    if lacks := lacking(connection, shows):
        text = f"the server has no model {lacks[0]}; start it with --model-root {COMPANIONS}, or start none"
        raise CliError(text, USAGE)


def lacking(connection: Connection, shows: Sequence[Show]) -> list[str]:
    """Ids of the models that the shows need and the server does not know."""
    return [show.needs for show in shows if show.needs and not _knows(connection, show.needs)]


def _knows(connection: Connection, model_id: str) -> bool:
    import grpc

    from deviceops.model.v1 import model_service_pb2 as pb

    try:
        connection.model.GetModel(pb.GetModelRequest(model_id=model_id))
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True


def _in_style(wish: Wish, made: Path) -> Wish:
    return replace(wish, loras=(LoraWish(_STYLE),))


def _mirrored(wish: Wish, made: Path) -> Wish:
    from PIL import ImageOps

    from deviceops.inference.v1 import conditioning_pb2

    canny = conditioning_pb2.ControlPreprocessing()
    canny.canny.SetInParent()
    picture = _sent(_changed(made, ImageOps.mirror))
    control = conditioning_pb2.ControlInput(model_id=_EDGES, image=picture, preprocessing=canny)
    return replace(wish, control_inputs=(control,))


def _with_new_eyes(wish: Wish, made: Path) -> Wish:
    from PIL import Image

    with Image.open(made) as picture:
        width, height = picture.size
    mask = Image.new("L", (width, height))
    # Eyes end a little below the middle.
    mask.paste(255, (0, 0, width, height * 17 // 32))
    return replace(
        wish,
        prompt=_NEW_EYES[wish.prompt],
        # Noise in each step lets the new part meet the old one better than a walk without.
        sampler="euler_a",
        image_input=_sent(made.read_bytes()),
        mask_input=_sent(_png(mask)),
    )


def _changed(file: Path, change: Callable[[Image], Image]) -> bytes:
    from PIL.Image import open as opened

    with opened(file) as picture:
        return _png(change(picture.convert("RGB")))


def _png(picture: Image) -> bytes:
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()


def _sent(data: bytes) -> ImageInput:
    from deviceops.common.v1 import image_pb2

    return image_pb2.ImageInput(data=data)


LORA = Show("in black", _in_style, needs=_STYLE)
CONTROL = Show("mirrored", _mirrored, needs=_EDGES)
INPAINT = Show("new eyes", _with_new_eyes, prompts=tuple(_NEW_EYES))
