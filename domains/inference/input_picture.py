"""A picture that a request hands in: its decoded properties, and the size of a result that takes its size from it."""

import msgspec

from domains.errors import ErrorReason, InvalidRequest, Violation
from domains.inference import limits
from domains.inference.generation import Generation
from domains.inference.image_fit import ImageFit
from domains.inference.init_image import InitImage, ResolvedInitImage
from domains.model.families import FAMILIES
from domains.model.model import Model

FIELD = "generation.init_image.image"


class InputPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded file."""

    blob_id: str
    sha256: str
    """Hash of the encoded file."""
    width_px: int
    """As shown: after its EXIF orientation."""
    height_px: int


def resolved_picture(asked: Generation, picture: InputPicture, steps: int) -> ResolvedInitImage:
    """The picture to start from with every choice made. Raises INVALID_FIELD if it has another size than `asked` says, and
    `asked` does not say how to fit it; with `zoom_to_mask` it keeps its size then."""
    init = asked.init_image
    assert init is not None, "only a request with a picture has one"
    size = picture.width_px, picture.height_px
    given = asked.width_px is not None and init.fit is None
    differs = given and size != (asked.width_px, asked.height_px)
    keeps = differs and asked.mask is not None and asked.mask.zoom_to_mask
    if differs and not keeps:
        able = ", ".join(name.upper() for name in limits.FITS)
        text = f"has {size[0]}×{size[1]} pixels, and {asked.width_px}×{asked.height_px} are asked for; say in"
        raise InvalidRequest([Violation(field=FIELD, message=f"{text} `fit` how to bring it there: {able}")])
    return ResolvedInitImage(
        blob_id=picture.blob_id,
        sha256=picture.sha256,
        strength=_strength(asked, init, steps),
        fit=None if keeps else init.fit or ImageFit.COVER,
        own_size_px=size if keeps else None,
    )


def _strength(asked: Generation, init: InitImage, steps: int) -> float:
    """The requested strength; else the share of the steps from the requested first step on; else the default."""
    first = asked.sampling.part.first_step
    if init.strength is None and first is not None:
        return max(0.0, 1 - first / steps)
    return limits.DEFAULT_STRENGTH if init.strength is None else init.strength


def size_of(picture: InputPicture, model: Model) -> tuple[int, int]:
    """The size of a result that takes its size from the picture: rounded down to what the family makes. Raises
    UNSUPPORTED_COMBINATION if that is too small or too large."""
    multiple = max(limits.EDGE_MULTIPLE_PX, FAMILIES[model.family].alignment_px)
    size = picture.width_px - picture.width_px % multiple, picture.height_px - picture.height_px % multiple
    low, high = limits.EDGE_PX
    if all(low <= edge <= high for edge in size):
        return size
    text = f"has {picture.width_px}×{picture.height_px} pixels; a result has edges of {low}..{high}:"
    violation = Violation(field=FIELD, message=f"{text} give width_px, height_px and a `fit`", allowed=limits.EDGES)
    raise InvalidRequest([violation], ErrorReason.UNSUPPORTED_COMBINATION, model_id=model.id)
