"""The values of a transfer, and the checks before it starts."""

import msgspec

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest, Violation
from domains.memory.blobs.blob import DEVICE_TIERS, Blob, BlobState, BlobTier
from domains.memory.blobs.store import BlobStore


class NewBlob(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Copy into a new blob."""

    tier: BlobTier = BlobTier.DISK
    device_id: str = ""


class ExistingBlob(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Copy into a WRITING blob, at an offset of at most its `written_bytes`."""

    blob_id: str
    offset_bytes: int = 0


class TransferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to copy or move bytes."""

    blob_id: str
    destination: NewBlob | ExistingBlob
    offset_bytes: int = 0
    length_bytes: int = 0
    """0: up to the end."""
    move: bool = False
    """Delete the source after the copy."""
    verify: bool = True
    session_id: str = ""
    """The session whose quota the new blob counts against."""
    reservation_id: str = ""
    """The reservation that pays for the new blob."""
    keep_for_s: float | None = None
    """Seconds that the new blob is kept. None: the server's setting."""


class TransferReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a transfer."""

    blob: Blob
    """The blob that has the bytes now."""
    transferred_bytes: int
    copy_s: float
    """Seconds from the first to the last byte, without the verification."""
    bytes_per_second: float | None
    """None: too short to measure."""
    verify_s: float | None
    """None: not verified."""
    verified: bool
    source_deleted: bool
    """The transfer was a move: its job deletes the source after this report is stored."""


def check_transfer(store: BlobStore, asked: TransferRequest, job_id: str = "") -> int:
    """The number of bytes to copy. Raises INVALID_FIELD, BLOB_NOT_FOUND or ILLEGAL_STATE.

    `job_id`: the job that may hold the source, so that a delete waits for it.
    """
    source = store.look(asked.blob_id)
    length = asked.length_bytes or max(0, source.size_bytes - asked.offset_bytes)
    wrong = _misplaced(asked, source, length)
    if asked.move and (asked.offset_bytes or length != source.size_bytes):
        wrong.append(Violation(field="move", message="only a whole blob can be moved"))
    if asked.move and not asked.verify:
        wrong.append(Violation(field="verify", message="a move is always verified; leave it empty"))
    match asked.destination:
        case NewBlob(tier=tier, device_id=device_id):
            wrong += _wrong_tier(tier, device_id)
        case ExistingBlob(blob_id=name, offset_bytes=offset):
            wrong += _wrong_place(store, name, offset, length)
    if wrong:
        raise InvalidRequest(wrong)
    held_by_job = source.state is BlobState.DELETING and store.is_held(source.id, job_id)
    if source.state is not BlobState.READY and not held_by_job:
        message = f"blob {source.id} is {source.state}; only one that is ready can be copied"
        raise FailedPrecondition(message, ErrorReason.ILLEGAL_STATE, blob_id=source.id, state=source.state)
    return length


def _misplaced(asked: TransferRequest, source: Blob, length: int) -> list[Violation]:
    size = source.size_bytes
    if not 0 <= asked.offset_bytes <= size:
        return [Violation(field="offset_bytes", message=f"{asked.offset_bytes} is not within 0..{size}")]
    if not 0 <= length <= size - asked.offset_bytes:
        return [Violation(field="length_bytes", message=f"{length} is not within 0..{size - asked.offset_bytes}")]
    return []


def _wrong_tier(tier: BlobTier, device_id: str) -> list[Violation]:
    if tier is BlobTier.MAPPED:
        return [Violation(field="new_blob.tier", message="a mapped blob is made by RegisterBlob")]
    if bool(device_id) != (tier in DEVICE_TIERS):
        message = f"the tier {tier} {'needs' if tier in DEVICE_TIERS else 'has no'} device"
        return [Violation(field="new_blob.device_id", message=message)]
    return []


def _wrong_place(store: BlobStore, name: str, offset: int, length: int) -> list[Violation]:
    target = store.get(name)
    if target.state is not BlobState.WRITING:
        message = f"blob {name} is {target.state}; bytes go only into one that is writing"
        raise FailedPrecondition(message, ErrorReason.ILLEGAL_STATE, blob_id=name, state=target.state)
    if not 0 <= offset <= target.written_bytes:
        message = f"{offset} is not within 0..{target.written_bytes}, the bytes that are written"
        return [Violation(field="existing_blob.offset_bytes", message=message)]
    if offset + length > target.size_bytes:
        message = f"{length} bytes at {offset} go beyond the blob's {target.size_bytes}"
        return [Violation(field="existing_blob.offset_bytes", message=message)]
    return []
