"""A blob: bytes that are too large for a message, or needed more than once."""

from enum import StrEnum

import msgspec


class BlobTier(StrEnum):
    """The memory that has the bytes. Only DISK outlives a restart of the server."""

    DISK = "disk"
    HOST = "host"
    PINNED_HOST = "pinned_host"
    DEVICE = "device"
    MAPPED = "mapped"


DEVICE_TIERS = (BlobTier.DEVICE, BlobTier.PINNED_HOST)
"""Tiers whose bytes a worker process holds. They are lost when it ends."""


class BlobState(StrEnum):
    """Whether a blob can be written, read or neither."""

    WRITING = "writing"
    READY = "ready"
    DELETING = "deleting"
    """Takes no new readers. The bytes are freed when the last reader and the last owner are gone."""
    CORRUPT = "corrupt"
    LOST = "lost"


class BlobOrigin(StrEnum):
    """How a blob was made."""

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
    """One blob. The bytes of a READY blob do not change, except those of a mapped one, with its generation."""

    id: str
    """For a job's blob: `b-` and the first 32 hex digits of the hash, so that equal bytes are one blob."""
    sha256: str
    """64 hex digits. Empty: the blob is WRITING, or was registered without a hash and not verified."""
    size_bytes: int
    """Size of the whole content, also while the blob is WRITING."""
    media_type: str
    """Empty: unknown."""
    create_time_s: float
    """Unix time; for content that was made several times, the first."""
    tier: BlobTier = BlobTier.DISK
    state: BlobState = BlobState.READY
    origin: BlobOrigin = BlobOrigin.JOB
    missing_bytes: int = 0
    """Bytes at the end that are not written yet."""
    expected_sha256: str = ""
    """The hash that the upload announced. Empty: none."""
    keep_for_s: float | None = None
    """Seconds that the blob is kept after its last write. None: until deleted."""
    expire_time_s: float | None = None
    """Unix time from which the blob may be removed if nothing needs it. None: never."""
    access_time_s: float | None = None
    """Unix time of the last read or write since the server started."""
    reader_count: int = 0
    """Open readers, and jobs and loaded models that use the blob."""
    generation: int = 1
    """Version of the content of a mapped blob, counted by its owner; 1 for every other blob."""
    labels: tuple[tuple[str, str], ...] = ()
    origin_job_id: str = ""
    """The job that made the blob first. Empty: none."""
    session_id: str = ""
    """The session whose quota the blob counts against. Empty: none."""
    device_id: str = ""
    """For DEVICE and PINNED_HOST only."""
    backing: MappedFile | SharedMemorySegment | None = None
    """For MAPPED only."""
    place: int = 0
    """Sort key of lists: microseconds of the creation, made unique. 0: not assigned yet."""

    @property
    def written_bytes(self) -> int:
        """Bytes from the start that are written; an interrupted upload continues here."""
        return self.size_bytes - self.missing_bytes


class BlobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a new blob."""

    size_bytes: int
    tier: BlobTier = BlobTier.DISK
    media_type: str = ""
    sha256: str = ""
    """The announced hash of the content. Empty: the hash is computed and not compared."""
    device_id: str = ""
    alignment_bytes: int = 0
    """Alignment of the start address. 0: the default of the memory."""
    fill_byte: int | None = None
    """Fill the whole blob with this byte."""
    keep_for_s: float | None = None
    """None: the server's setting."""
    session_id: str = ""
    reservation_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()


def blob_id(sha256: str) -> str:
    """The id of the blob that a job made with this hash; 128 bits are beyond accidental collision."""
    return f"b-{sha256[:32]}"
