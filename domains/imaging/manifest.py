"""Reads the manifest inside a file of any format."""

from domains.imaging.media_types import MEDIA_TYPES, media_type_of


def read_manifest(data: bytes) -> str | None:
    """The text that `encode(…, manifest=…)` put there; None without one. Raises BAD_IMAGE for a broken file."""
    return MEDIA_TYPES[media_type_of(data)].read_manifest(data)
