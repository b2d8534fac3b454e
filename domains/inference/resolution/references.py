"""Makes every choice that a request leaves open about the pictures that its model sees."""

from collections.abc import Sequence

from domains.errors import InvalidRequest, Violation
from domains.inference.controls import UsedPicture
from domains.inference.image_fit import ImageFit
from domains.inference.input_picture import InputPicture
from domains.inference.references import Reference, ResolvedReference
from domains.model.families import FAMILIES, Variant
from domains.model.families.flux1 import CONTROL
from domains.model.model import Model

_TALL_PX = ((672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104))
_KONTEXT_PX = (*_TALL_PX, (1024, 1024), *((height, width) for width, height in _TALL_PX))
"""(width, height) on which FLUX.1 Kontext was trained (Black Forest Labs 2025)."""


def references_of(model: Model) -> tuple[int, int]:
    """Least and most pictures that a model sees beside the prompt."""
    variant = _variant(model)
    return (0, 0) if variant is None else variant.references


def default_image_guidance(model: Model) -> float | None:
    """Image guidance for a request that sets none. None: the model has no default."""
    variant = _variant(model)
    return None if variant is None else variant.image_guidance


def resolved_references(
    asked: Sequence[Reference], model: Model, size_px: tuple[int, int], read: Sequence[InputPicture]
) -> tuple[ResolvedReference, ...]:
    """The pictures with every choice made. `size_px`: of the result. `read`: the files, decoded."""
    if len(read) < len(asked):
        raise InvalidRequest([Violation(field="generation.reference_images", message="were not read")])
    return tuple(_resolved(one, picture, model, size_px) for one, picture in zip(asked, read, strict=True))


def _resolved(one: Reference, picture: InputPicture, model: Model, size_px: tuple[int, int]) -> ResolvedReference:
    # A U-Net reads the picture in channels beside the latents, as FLUX.1 a control map; Kontext in tokens of their own.
    in_channels = model.variant == CONTROL or not FAMILIES[model.family].flow
    own = size_px if in_channels else nearest_px(picture.width_px / picture.height_px)
    return ResolvedReference(
        image=UsedPicture(blob_id=picture.blob_id, sha256=picture.sha256),
        fit=one.fit or ImageFit.COVER,
        width_px=own[0],
        height_px=own[1],
    )


def nearest_px(aspect: float) -> tuple[int, int]:
    """The size of FLUX.1 Kontext whose width divided by its height is nearest."""
    return min(_KONTEXT_PX, key=lambda size: (abs(aspect - size[0] / size[1]), size))


def _variant(model: Model) -> Variant | None:
    return FAMILIES[model.family].variant(model.variant)
