"""Encodes pixels to a file."""

import numpy as np
from numpy.typing import NDArray

from domains.errors import ErrorReason, InvalidRequest, Violation, excerpt
from domains.imaging import provenance
from domains.imaging.media_types import DEFAULT_QUALITY, MEDIA_TYPES, MediaType
from domains.imaging.metadata import Metadata
from domains.imaging.provenance import DigitalSource


def encode(
    pixels: NDArray[np.uint8],
    media_type: str,
    *,
    quality: int | None = None,
    lossless: bool = False,
    manifest: str | None = None,
    parameters: str | None = None,
    source: DigitalSource | None = None,
) -> bytes:
    """(height, width[, 3 | 4]) to a file of `media_type`, with the texts in its metadata and the mark of its `source`.

    PNG keeps every pixel and has no quality, and so does WebP if it is `lossless`. Else `quality` is 1..100, 90 where it
    is None. JPEG has no alpha; grey stays grey in PNG and JPEG and becomes RGB in WebP and AVIF. `parameters` are A1111's.
    The same arguments give the same bytes. Raises InvalidRequest with all that is wrong.
    """
    if violations := list(_violations(pixels, media_type, quality, lossless, parameters)):
        raise InvalidRequest(violations, ErrorReason.UNSUPPORTED_COMBINATION)
    chosen = None if lossless else DEFAULT_QUALITY if quality is None else quality
    xmp = None if source is None else provenance.packet(source)
    metadata = Metadata(manifest=manifest, parameters=parameters, xmp=xmp)
    return MEDIA_TYPES[media_type].write(np.ascontiguousarray(pixels), chosen, metadata)


def _violations(
    pixels: NDArray[np.uint8], media_type: str, quality: int | None, lossless: bool, parameters: str | None
) -> list[Violation]:
    if (known := MEDIA_TYPES.get(media_type)) is None:
        names = ", ".join(MEDIA_TYPES)
        return [
            Violation(
                field="media_type", message=f"cannot write {excerpt(media_type)!r}; known: {names}", allowed=names
            )
        ]
    return [
        *_wrong_pixels(pixels, media_type, known),
        *_wrong_quality(quality, media_type, known, lossless),
        *_wrong_parameters(parameters, media_type, known),
    ]


def _wrong_pixels(pixels: NDArray[np.uint8], media_type: str, known: MediaType) -> list[Violation]:
    channels = pixels.shape[2:]
    if pixels.dtype != np.uint8 or pixels.ndim < 2 or channels not in ((), (3,), (4,)):
        message = f"must be uint8 (height, width[, 3 | 4]), not {pixels.dtype} {pixels.shape}"
    elif channels == (4,) and not known.alpha:
        message = f"{media_type} has no alpha; drop the channel, or ask for image/png or image/webp"
    else:
        height, width = pixels.shape[:2]
        if min(height, width) > 0 and max(height, width) <= known.side_limit_px:
            return []
        message = f"{width}×{height} pixels; {media_type} takes sides of 1..{known.side_limit_px}"
    return [Violation(field="pixels", message=message)]


def _wrong_quality(quality: int | None, media_type: str, known: MediaType, lossless: bool) -> list[Violation]:
    if lossless and not known.lossless:
        able = ", ".join(name for name, one in MEDIA_TYPES.items() if one.lossless)
        message = f"{media_type} cannot be written without loss; these can: {able}"
        return [Violation(field="lossless", message=message, allowed=able)]
    lossy = known.lossy and not lossless
    if quality is None or (lossy and 1 <= quality <= 100):
        return []
    message = f"must be 1..100, not {quality}" if lossy else f"{media_type} is lossless; leave the quality absent"
    return [Violation(field="quality", message=message, allowed="1..100" if lossy else "")]


def _wrong_parameters(parameters: str | None, media_type: str, known: MediaType) -> list[Violation]:
    limit = known.parameters_limit_bytes
    if parameters is None or limit is None or (size := len(parameters.encode("utf-16-be"))) <= limit:
        return []
    message = f"has {size} bytes as UTF-16; {media_type} holds at most {limit}"
    return [Violation(field="parameters", message=message, allowed=f"0..{limit} bytes")]
