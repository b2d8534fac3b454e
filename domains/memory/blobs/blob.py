"""A blob: bytes too large for a message, or needed more than once, and where they lie."""

from enum import StrEnum

import msgspec


class BlobTier(StrEnum):
    """Where the bytes lie. Only DISK outlives a restart of the server."""

    DISK = "disk"
    HOST = "host"
    PINNED_HOST = "pinned_host"
    DEVICE = "device"
    MAPPED = "mapped"


DEVICE_TIERS = (BlobTier.DEVICE, BlobTier.PINNED_HOST)
"""Tiers whose bytes a worker holds, and loses when it dies."""


class BlobState(StrEnum):
    """What can be done with a blob now."""

    WRITING = "writing"
    READY = "ready"
    DELETING = "deleting"
    """No new readers; the bytes go with the last one who reads or needs them."""
    CORRUPT = "corrupt"
    LOST = "lost"


class BlobOrigin(StrEnum):
    """How a blob came to be."""

    JOB = "job"
    UPLOAD = "upload"
    REGISTRATION = "registration"
    TRANSFER = "transfer"


class MappedFile(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A part of a file that another process owns."""

    path: str
    """Absolute, without symbolic links."""
    offset_bytes: int = 0


class SharedMemorySegment(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A part of named shared memory that another process owns. Windows only."""

    name: str
    offset_bytes: int = 0


class Blob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one blob is. READY, it keeps its bytes; only the owner of a mapped one changes them, with its generation."""

    id: str
    """Of what a job made: `b-` and the first 32 hex digits of the hash, so that the same bytes are the same blob."""
    sha256: str
    """64 hex digits over the whole content. Empty: still being written, or registered without one and not verified."""
    size_bytes: int
    """Of the whole content, also while it is being written."""
    media_type: str
    """Empty: not said."""
    create_time_s: float
    """Unix time at which it was made; for content that was made again, the first time."""
    tier: BlobTier = BlobTier.DISK
    state: BlobState = BlobState.READY
    origin: BlobOrigin = BlobOrigin.JOB
    missing_bytes: int = 0
    """How many bytes at its end are still to be written; 0 once it is complete."""
    expected_sha256: str = ""
    """What an upload said that its content would have. Empty: it did not say."""
    keep_for_s: float | None = None
    """How long it is kept after the last byte was written. None: until deleted."""
    expire_time_s: float | None = None
    """Unix time from which it may be collected if nothing needs it. None: never by itself."""
    access_time_s: float | None = None
    """Unix time of the last read or write since the server started."""
    reader_count: int = 0
    """Open reads, and the jobs and loaded models that use it."""
    generation: int = 1
    """Edition of the content as the owner of a mapped blob counts it; 1 for every other."""
    labels: tuple[tuple[str, str], ...] = ()
    origin_job_id: str = ""
    """The job that first made it. Empty: none."""
    session_id: str = ""
    """The session that it counts against. Empty: none."""
    device_id: str = ""
    """Of DEVICE and PINNED_HOST."""
    backing: MappedFile | SharedMemorySegment | None = None
    """Of MAPPED."""
    place: int = 0
    """Its place in lists, rising: microseconds of the creation, made unique. 0: not listed yet."""

    @property
    def written_bytes(self) -> int:
        """How many bytes from the start are written; a broken upload goes on from here."""
        return self.size_bytes - self.missing_bytes


class BlobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a new blob is to be, checked."""

    size_bytes: int
    tier: BlobTier = BlobTier.DISK
    media_type: str = ""
    sha256: str = ""
    """What the content shall have. Empty: only computed."""
    device_id: str = ""
    alignment_bytes: int = 0
    """Of the start address. 0: what suits the memory."""
    fill_byte: int | None = None
    """Fills the whole blob at once."""
    keep_for_s: float | None = None
    """None: the server's setting."""
    session_id: str = ""
    reservation_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()


def blob_id(sha256: str) -> str:
    """The id of the blob that a job made with this hash; 128 bits are beyond accidental collision."""
    return f"b-{sha256[:32]}"
