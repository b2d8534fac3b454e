"""How a picture was made, as far as its file says."""

import msgspec

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference.generation import Generation, ResolvedGeneration

FIELD = "reproduction.image"
"""The path of the picture in a request."""


class NamedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as a file names it. Empty: the file does not say."""

    id: str = ""
    """This server's own id."""
    sha256: str = ""
    """As `domains.model.fingerprint` computes it."""
    name: str = ""
    """As another program names it: of a file, without its folder."""


class NamedLora(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA that another program names."""

    name: str
    weight: float


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One difference from how the picture was first made."""

    name: str
    original: str
    present: str = ""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask for."""

    source: str
    """The program that wrote it."""
    generation: Generation = Generation(prompt="")
    """Without its model, as another program says it. Of our own manifest: see `original`."""
    model: NamedModel
    loras: tuple[NamedLora, ...] = ()
    """Those that are named, and not yet in `generation`."""
    upscaler: str = ""
    """The upscaler model of the second pass, as another program names it. Empty: it names none."""
    unread: tuple[Cause, ...] = ()
    """Settings that have no counterpart here."""
    original: ResolvedGeneration | None = None
    """What our own manifest says, of this picture alone."""
    image_count: int = 1
    """How many pictures were made together, which can change their rounding."""
    versions: tuple[tuple[str, str], ...] = ()
    """(`library` or `server_version`, what computed it), as our own manifest says."""


def unusable(problem: str) -> InvalidRequest:
    """BAD_IMAGE; `problem` continues the words "the image …"."""
    return InvalidRequest([Violation(field=FIELD, message=f"the image {problem}")], ErrorReason.BAD_IMAGE)


def stem(name: str) -> str:
    """The name of a model's file without its folder and ending."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return last.removesuffix(".safetensors").removesuffix(".ckpt")
