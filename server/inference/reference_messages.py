"""Converts the pictures that a model sees to and from messages."""

from collections.abc import Sequence

from deviceops.common.v1 import image_pb2
from deviceops.inference.v1 import conditioning_pb2, resolved_generation_pb2
from domains.inference.controls import PictureSource
from domains.inference.generation import ResolvedGeneration
from domains.inference.references import Reference, ResolvedReference
from server.inference.control_messages import FIT_NUMBERS, FITS


def from_reference(message: conditioning_pb2.ReferenceImage) -> Reference:
    """The picture of a request."""
    source = PictureSource(blob_id=message.image.blob_id, data=message.image.data)
    return Reference(image=source, fit=FITS.get(message.fit))


def to_reference(one: Reference | ResolvedReference) -> conditioning_pb2.ReferenceImage:
    """The message of a picture, as the caller asked for it or with every choice made."""
    fit = image_pb2.IMAGE_FIT_UNSPECIFIED if one.fit is None else FIT_NUMBERS[one.fit]
    return conditioning_pb2.ReferenceImage(image=image_pb2.ImageInput(blob_id=one.image.blob_id), fit=fit)


def used_references(resolved: ResolvedGeneration) -> Sequence[resolved_generation_pb2.UsedImage]:
    """The pictures that took part."""
    return [
        resolved_generation_pb2.UsedImage(
            field=f"reference_images[{place}].image", blob_id=one.image.blob_id, sha256=one.image.sha256
        )
        for place, one in enumerate(resolved.references)
    ]
