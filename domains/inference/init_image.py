"""The picture that a generation starts from, as requested and with every choice made."""

import msgspec

from domains.inference.image_fit import ImageFit


class InitImage(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to start from, as requested."""

    blob_id: str = ""
    """The blob with the encoded file."""
    data: bytes = b""
    """The encoded file, until it is stored as a blob. Stored requests name the blob."""
    strength: float | None = None
    """Share of the steps that are computed, 0..1. Absent: 0.75."""
    fit: ImageFit | None = None
    """Absent: the picture must have the requested size."""


class ResolvedInitImage(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to start from, with every choice made."""

    blob_id: str
    sha256: str
    """Hash of the encoded file: a replay detects another one."""
    strength: float
    fit: ImageFit | None
    """None: the picture keeps its own size, and the part that is made anew is pasted back into it."""
    own_size_px: tuple[int, int] | None = None
    """(width, height) of a picture that keeps its size."""
