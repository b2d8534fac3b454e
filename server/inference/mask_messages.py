"""Converts masks, and the growth of pictures, to and from messages."""

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import conditioning_pb2
from domains.inference.masks import SIDES, InpaintMask, MaskBlend, MaskFill, Outpaint, ResolvedMask, ResolvedOutpaint

_BLENDS = {
    conditioning_pb2.MASK_BLEND_NONE: MaskBlend.NONE,
    conditioning_pb2.MASK_BLEND_FEATHER: MaskBlend.FEATHER,
    conditioning_pb2.MASK_BLEND_GAUSSIAN: MaskBlend.GAUSSIAN,
}
_BLEND_NUMBERS = {blend: number for number, blend in _BLENDS.items()}
_FILLS = {
    conditioning_pb2.MASK_FILL_ORIGINAL: MaskFill.ORIGINAL,
    conditioning_pb2.MASK_FILL_NOISE: MaskFill.NOISE,
    conditioning_pb2.MASK_FILL_EDGE: MaskFill.EDGE,
}
_FILL_NUMBERS = {fill: number for number, fill in _FILLS.items()}


def from_mask(message: conditioning_pb2.InpaintMask) -> InpaintMask:
    """The mask of a request."""
    return InpaintMask(
        blob_id=message.image.blob_id,
        data=message.image.data,
        blur_px=message.blur_px if message.HasField("blur_px") else None,
        dilation_px=message.dilation_px,
        invert=message.invert,
        blend=_BLENDS.get(message.blend, MaskBlend.FEATHER),
        fill=_FILLS.get(message.fill, MaskFill.ORIGINAL),
        zoom_to_mask=message.zoom_to_mask,
        zoom_padding_px=message.zoom_padding_px if message.HasField("zoom_padding_px") else None,
    )


def to_mask(told: InpaintMask | ResolvedMask | None) -> conditioning_pb2.InpaintMask | None:
    """The message of a mask."""
    if told is None:
        return None
    zooms = told.zoom_padding_px is not None if isinstance(told, ResolvedMask) else told.zoom_to_mask
    return conditioning_pb2.InpaintMask(
        image=image_pb2.ImageInput(blob_id=told.blob_id),
        blur_px=told.blur_px,
        dilation_px=told.dilation_px,
        invert=told.invert,
        blend=_BLEND_NUMBERS[told.blend],
        fill=_FILL_NUMBERS[told.fill],
        zoom_to_mask=zooms,
        zoom_padding_px=told.zoom_padding_px,
    )


def from_outpaint(message: conditioning_pb2.Outpaint) -> Outpaint:
    """The growth of a request."""
    return Outpaint(
        **{side: getattr(message, side) for side in SIDES},
        overlap_px=message.overlap_px if message.HasField("overlap_px") else None,
        fill=_FILLS.get(message.fill, MaskFill.EDGE),
    )


def to_outpaint(told: Outpaint | ResolvedOutpaint | None) -> conditioning_pb2.Outpaint | None:
    """The message of a growth."""
    if told is None:
        return None
    sides = {side: getattr(told, side) for side in SIDES}
    return conditioning_pb2.Outpaint(**sides, overlap_px=told.overlap_px, fill=_FILL_NUMBERS[told.fill])
