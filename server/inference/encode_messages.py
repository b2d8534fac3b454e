"""Converts EncodeOptions to and from messages."""

from deviceops.common.v1 import image_pb2
from domains.errors import Violation
from domains.inference.generation import EncodeOptions, ManifestDetail

_DETAILS = {
    image_pb2.MANIFEST_DETAIL_UNSPECIFIED: ManifestDetail.FULL,
    image_pb2.MANIFEST_DETAIL_FULL: ManifestDetail.FULL,
    image_pb2.MANIFEST_DETAIL_RECIPE: ManifestDetail.RECIPE,
    image_pb2.MANIFEST_DETAIL_NONE: ManifestDetail.NONE,
}
_NAMES = {detail: number for number, detail in _DETAILS.items()}


def from_encode(message: image_pb2.EncodeOptions) -> EncodeOptions:
    """The options of a message; an empty one: PNG, full manifest, marked as made by AI. Call `unserved_encode` first."""
    return EncodeOptions(
        media_type=message.media_type or "image/png",
        quality=message.quality if message.HasField("quality") else None,
        lossless=message.lossless,
        bit_depth=message.bit_depth,
        manifest=_DETAILS.get(message.manifest, ManifestDetail.FULL),
        a1111_parameters=message.a1111_parameters,
        provenance=message.provenance if message.HasField("provenance") else True,
    )


def to_encode(options: EncodeOptions) -> image_pb2.EncodeOptions:
    """The message of encode options."""
    return image_pb2.EncodeOptions(
        media_type=options.media_type,
        quality=options.quality,
        lossless=options.lossless,
        bit_depth=options.bit_depth,
        manifest=_NAMES[options.manifest],
        a1111_parameters=options.a1111_parameters,
        provenance=options.provenance,
    )


def unserved_encode(message: image_pb2.EncodeOptions, path: str) -> list[Violation]:
    """Violations for the values that this server does not write for the media type."""
    avif = message.media_type == "image/avif"
    unserved = {
        "lossless": message.lossless and avif,
        "bit_depth": message.bit_depth
        in ((10, 12) if avif else (16,) if message.media_type in ("", "image/png") else ()),
    }
    text = "this server does not serve it yet; GetInferenceCapabilities lists the fields that it serves"
    return [Violation(field=f"{path}.{name}", message=text) for name, asked in unserved.items() if asked]
