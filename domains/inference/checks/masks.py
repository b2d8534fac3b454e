"""Finds the faults of a mask that do not depend on the model, and makes its choices."""

from collections.abc import Iterator

from domains.errors import InvalidRequest, Violation
from domains.inference.checks.bounds import within
from domains.inference.generation import Generation
from domains.inference.input_picture import InputPicture
from domains.inference.masks import DEFAULT_BLUR_PX, DEFAULT_ZOOM_PADDING_PX, ResolvedMask
from domains.model.families.unet import INPAINTING
from domains.model.model import Model

_FIELD = "generation.mask.image"
_BOUNDED = ("blur_px", "dilation_px", "zoom_padding_px")


def mask_violations(asked: Generation) -> Iterator[Violation]:
    """Fields of the mask that are wrong by themselves."""
    mask = asked.mask
    if mask is None:
        return
    if not (mask.blob_id or mask.data):
        message = "must be set: give the file in `data`, or a blob that holds it in `blob_id`"
        yield Violation(field=_FIELD, message=message)
    for name in _BOUNDED:
        yield from within(f"mask.{name}", getattr(mask, name))


def mask_exclusions(asked: Generation) -> Iterator[Violation]:
    """Fields that a mask needs or excludes."""
    mask = asked.mask
    if mask is None:
        return
    if asked.init_image is None:
        text = "a mask is a part of a picture; give that picture as `init_image`, or leave the mask out"
        yield Violation(field="generation.mask", message=text)
    if mask.zoom_padding_px is not None and not mask.zoom_to_mask:
        text = "counts only with zoom_to_mask; set that, or leave the padding out"
        yield Violation(field="generation.mask.zoom_padding_px", message=text)


def for_variant(asked: Generation, model: Model) -> Iterator[Violation]:
    """What a model made for inpainting needs."""
    if model.variant == INPAINTING and asked.mask is None and asked.outpaint is None:
        text = (
            f"model {model.id} was made for inpainting, and reads a mask; give `init_image`, and `mask` or `outpaint`"
        )
        yield Violation(field="generation.mask", message=text)


def resolved_mask(asked: Generation, mask: InputPicture | None, picture: InputPicture | None) -> ResolvedMask | None:
    """The mask with every choice made. `mask`, `picture`: the files, decoded. Raises INVALID_FIELD for a mask of another
    size than the picture's and the result's, if `init_image` does not say how to fit them."""
    given, init = asked.mask, asked.init_image
    if given is None or mask is None or picture is None or init is None:
        return None
    size, own = (mask.width_px, mask.height_px), (picture.width_px, picture.height_px)
    if init.fit is None and size not in (own, (asked.width_px, asked.height_px)):
        text = f"has {size[0]}×{size[1]} pixels, and init_image has {own[0]}×{own[1]}; give a mask of that size, or say"
        raise InvalidRequest(
            [Violation(field=_FIELD, message=f"{text} in init_image.fit how to bring both to the result")]
        )
    padding = DEFAULT_ZOOM_PADDING_PX if given.zoom_padding_px is None else given.zoom_padding_px
    return ResolvedMask(
        blob_id=mask.blob_id,
        sha256=mask.sha256,
        blur_px=DEFAULT_BLUR_PX if given.blur_px is None else given.blur_px,
        dilation_px=given.dilation_px,
        invert=given.invert,
        blend=given.blend,
        fill=given.fill,
        zoom_padding_px=padding if given.zoom_to_mask else None,
    )
