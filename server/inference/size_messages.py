"""Converts what a denoiser is told about sizes to and from messages."""

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import passes_pb2
from domains.inference.size_conditioning import SizeConditioning, SizePx


def from_sizes(message: passes_pb2.SizeConditioning) -> SizeConditioning:
    """The sizes of a request."""
    return SizeConditioning(
        original_px=_from_size(message.original_size),
        target_px=_from_size(message.target_size),
        crop_left_px=message.crop_left_px,
        crop_top_px=message.crop_top_px,
    )


def to_sizes(told: SizeConditioning | None) -> passes_pb2.SizeConditioning | None:
    """The message of sizes."""
    if told is None:
        return None
    return passes_pb2.SizeConditioning(
        original_size=_to_size(told.original_px),
        target_size=_to_size(told.target_px),
        crop_left_px=told.crop_left_px,
        crop_top_px=told.crop_top_px,
    )


def _from_size(message: image_pb2.ImageSize) -> SizePx:
    return message.width_px, message.height_px


def _to_size(size: SizePx) -> image_pb2.ImageSize | None:
    return image_pb2.ImageSize(width_px=size[0], height_px=size[1]) if any(size) else None
