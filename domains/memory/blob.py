"""A blob: bytes too large for a message, named by what they are."""

import msgspec


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """One content-addressed file in the state folder."""

    id: str
    """`b-` and the first 32 hex digits of the hash: the same bytes are the same blob."""
    sha256: str
    """64 hex digits over the whole content."""
    size_bytes: int
    media_type: str
    create_time_s: float
    """Unix time at which these bytes were first stored."""


def blob_id(sha256: str) -> str:
    """The id of the blob with this hash; 128 bits are beyond accidental collision."""
    return f"b-{sha256[:32]}"
