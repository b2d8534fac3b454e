"""Converts blobs between messages and values of the domain."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from deviceops.common.v1 import label_pb2
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from domains.errors import InvalidRequest, Violation
from domains.memory.blobs.blob import Blob, BlobOrigin, BlobSpec, BlobState, BlobTier, MappedFile, SharedMemorySegment
from domains.memory.blobs.listing import BlobFilter
from domains.memory.blobs.registration_request import Registration
from domains.memory.blobs.transfer_request import ExistingBlob, NewBlob, TransferReport, TransferRequest
from server import convert

DeviceId = Callable[[str], str]
"""The id of a device by id or alias; DEVICE_NOT_FOUND. Empty stays empty."""

Value = TypeVar("Value")

_TIERS: Mapping[BlobTier, blob_pb2.BlobTier.ValueType] = {
    BlobTier.DISK: blob_pb2.BLOB_TIER_DISK,
    BlobTier.HOST: blob_pb2.BLOB_TIER_HOST,
    BlobTier.PINNED_HOST: blob_pb2.BLOB_TIER_PINNED_HOST,
    BlobTier.DEVICE: blob_pb2.BLOB_TIER_DEVICE,
    BlobTier.MAPPED: blob_pb2.BLOB_TIER_MAPPED,
}
_STATES: Mapping[BlobState, blob_pb2.BlobState.ValueType] = {
    BlobState.WRITING: blob_pb2.BLOB_STATE_WRITING,
    BlobState.READY: blob_pb2.BLOB_STATE_READY,
    BlobState.DELETING: blob_pb2.BLOB_STATE_DELETING,
    BlobState.CORRUPT: blob_pb2.BLOB_STATE_CORRUPT,
    BlobState.LOST: blob_pb2.BLOB_STATE_LOST,
}
_ORIGINS: Mapping[BlobOrigin, blob_pb2.BlobOrigin.ValueType] = {
    BlobOrigin.JOB: blob_pb2.BLOB_ORIGIN_JOB,
    BlobOrigin.UPLOAD: blob_pb2.BLOB_ORIGIN_UPLOAD,
    BlobOrigin.REGISTRATION: blob_pb2.BLOB_ORIGIN_REGISTRATION,
    BlobOrigin.TRANSFER: blob_pb2.BLOB_ORIGIN_TRANSFER,
}


def to_blob(blob: Blob) -> blob_pb2.Blob:
    """The message of a blob."""
    message = blob_pb2.Blob(
        id=blob.id,
        sha256=blob.sha256,
        size_bytes=blob.size_bytes,
        media_type=blob.media_type,
        tier=_TIERS[blob.tier],
        state=_STATES[blob.state],
        origin=_ORIGINS[blob.origin],
        create_time=convert.to_time(blob.create_time_s),
        expire_time=None if blob.expire_time_s is None else convert.to_time(blob.expire_time_s),
        access_time=None if blob.access_time_s is None else convert.to_time(blob.access_time_s),
        reader_count=blob.reader_count,
        generation=blob.generation,
        labels=[label_pb2.Label(key=key, value=value) for key, value in blob.labels],
        origin_job_id=blob.origin_job_id,
        session_id=blob.session_id,
        device_id=blob.device_id,
        written_bytes=blob.written_bytes,
    )
    match blob.backing:
        case MappedFile(path=path, offset_bytes=offset):
            message.file.CopyFrom(blob_pb2.MappedFile(path=path, offset_bytes=offset))
        case SharedMemorySegment(name=name, offset_bytes=offset):
            message.shared_memory.CopyFrom(blob_pb2.SharedMemorySegment(name=name, offset_bytes=offset))
        case None:
            pass
    return message


def from_spec(message: blob_pb2.BlobSpec, device_id: DeviceId, path: str = "blob_spec") -> BlobSpec:
    """A request for a new blob. The store checks the values."""
    return BlobSpec(
        size_bytes=message.size_bytes,
        tier=from_tier(message.tier, f"{path}.tier"),
        media_type=message.media_type,
        sha256=message.sha256,
        device_id=device_id(message.device_id),
        alignment_bytes=message.alignment_bytes,
        fill_byte=message.fill_byte if message.HasField("fill_byte") else None,
        keep_for_s=_span(message.keep_for) if message.HasField("keep_for") else None,
        session_id=message.session_id,
        reservation_id=message.reservation_id,
        labels=convert.labels_of(message.labels),
    )


def from_registration(message: memory_service_pb2.RegisterBlobRequest) -> Registration:
    """A registration. The store checks the values."""
    match message.WhichOneof("backing"):
        case "file":
            backing = MappedFile(path=message.file.path, offset_bytes=message.file.offset_bytes)
        case "shared_memory":
            told = message.shared_memory
            backing = SharedMemorySegment(name=told.name, offset_bytes=told.offset_bytes)
        case _:
            text = "says not where the bytes are; set `file` or `shared_memory`"
            raise InvalidRequest([Violation(field="backing", message=text)])
    return Registration(
        backing=backing,
        blob_id=message.blob_id,
        size_bytes=message.size_bytes if message.HasField("size_bytes") else None,
        media_type=message.media_type,
        sha256=message.sha256,
        generation=message.generation,
        verify=message.verify if message.HasField("verify") else True,
        keep_for_s=_span(message.keep_for) if message.HasField("keep_for") else None,
        session_id=message.session_id,
        labels=convert.labels_of(message.labels),
    )


def from_filter(message: blob_pb2.BlobFilter, device_id: DeviceId) -> BlobFilter:
    """A filter of blobs."""
    return BlobFilter(
        tiers=convert.distinct(_value(_TIERS, number, "filter.tiers") for number in message.tiers),
        states=convert.distinct(_value(_STATES, number, "filter.states") for number in message.states),
        origins=convert.distinct(_value(_ORIGINS, number, "filter.origins") for number in message.origins),
        media_type=message.media_type,
        sha256=message.sha256,
        session_id=message.session_id,
        origin_job_id=message.origin_job_id,
        device_id=device_id(message.device_id),
        labels=convert.wanted_labels(message.labels),
    )


def from_transfer(message: blob_pb2.BlobTransfer, device_id: DeviceId, path: str = "blob_transfer") -> TransferRequest:
    """A request for a transfer. `check_transfer` checks the values."""
    match message.WhichOneof("destination"):
        case "new_blob":
            tier = from_tier(message.new_blob.tier, f"{path}.new_blob.tier")
            destination = NewBlob(tier=tier, device_id=device_id(message.new_blob.device_id))
        case "existing_blob":
            place = message.existing_blob
            destination = ExistingBlob(blob_id=place.blob_id, offset_bytes=place.offset_bytes)
        case _:
            text = "says not where to; set `new_blob` or `existing_blob`"
            raise InvalidRequest([Violation(field=f"{path}.destination", message=text)])
    return TransferRequest(
        blob_id=message.blob_id,
        destination=destination,
        offset_bytes=message.offset_bytes,
        length_bytes=message.length_bytes,
        move=message.move,
        verify=message.verify if message.HasField("verify") else True,
    )


def to_transfer(asked: TransferRequest) -> blob_pb2.BlobTransfer:
    """The message of a requested transfer."""
    message = blob_pb2.BlobTransfer(
        blob_id=asked.blob_id,
        offset_bytes=asked.offset_bytes,
        length_bytes=asked.length_bytes,
        move=asked.move,
        verify=asked.verify,
    )
    match asked.destination:
        case NewBlob(tier=tier, device_id=device_id):
            message.new_blob.CopyFrom(blob_pb2.NewBlobDestination(tier=_TIERS[tier], device_id=device_id))
        case ExistingBlob(blob_id=name, offset_bytes=offset):
            message.existing_blob.CopyFrom(blob_pb2.ExistingBlobDestination(blob_id=name, offset_bytes=offset))
    return message


def to_transfer_report(report: TransferReport) -> blob_pb2.BlobTransferReport:
    """The message of a transfer's result."""
    return blob_pb2.BlobTransferReport(
        blob=to_blob(report.blob),
        transferred_bytes=report.transferred_bytes,
        copy_time=convert.to_duration(report.copy_s),
        bytes_per_second=report.bytes_per_second,
        verify_time=None if report.verify_s is None else convert.to_duration(report.verify_s),
        verified=report.verified,
        source_deleted=report.source_deleted,
    )


def from_tier(number: int, field: str) -> BlobTier:
    """The tier of a field's value; UNSPECIFIED is DISK."""
    return _value(_TIERS, number, field) if number else BlobTier.DISK


def _value(table: Mapping[Value, int], number: int, field: str) -> Value:
    for value, known in table.items():
        if known == number:
            return value
    choices = ", ".join(map(str, table.values()))
    raise InvalidRequest([Violation(field=field, message=f"there is no value {number}", allowed=choices)])


def _span(message: Duration) -> float:
    return convert.from_duration(message)
