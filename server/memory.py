"""MemoryService: the blob plane, as far as it is built."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc

from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from domains.errors import Aborted, InvalidRequest, Violation
from domains.memory.blob import Blob
from domains.memory.blob_store import BlobStore
from server import convert

CHUNK_BYTES = 1024 * 1024
MIN_CHUNK_BYTES = 4 * 1024
Context = grpc.aio.ServicerContext[Any, Any]


class MemoryServicer:
    """Blobs to read."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def GetBlob(
        self, request: memory_service_pb2.GetBlobRequest, context: Context
    ) -> memory_service_pb2.GetBlobResponse:
        """What is known of a blob."""
        return memory_service_pb2.GetBlobResponse(blob=to_blob(self._blobs.get(request.blob_id)))

    async def ReadBlob(self, request: memory_service_pb2.ReadBlobRequest, context: Context) -> AsyncIterator[bytes]:
        """A blob's bytes in chunks; the blob stays readable to the end even if it is deleted meanwhile."""
        chunk = request.chunk_bytes or CHUNK_BYTES
        blob, descriptor = self._blobs.open(request.blob_id)
        ahead: asyncio.Task[bytes] | None = None
        try:
            begin, end = _extent(request, blob, chunk)
            offsets = range(begin, max(end, begin + 1), chunk)
            ahead = _read_ahead(descriptor, begin, end, chunk, blob.size_bytes)
            for offset in offsets:
                message = await ahead
                if (following := offset + chunk) < end:
                    ahead = _read_ahead(descriptor, following, end, chunk, None)
                yield message
        finally:
            if ahead is not None:
                # Its thread may still read from the descriptor.
                await asyncio.wait([ahead])
            os.close(descriptor)


def _read_ahead(descriptor: int, offset: int, end: int, chunk: int, total: int | None) -> asyncio.Task[bytes]:
    """Read and serialise the chunk at `offset` on a thread, while the one before it is sent."""
    size = min(chunk, end - offset)
    return asyncio.create_task(asyncio.to_thread(lambda: _response(offset, total, os.pread(descriptor, size, offset))))


_DATA_TAG = memory_service_pb2.ReadBlobResponse.DATA_FIELD_NUMBER << 3 | 2
"""What stands before the field `data` on the wire: its number and the wire type of bytes."""


def _response(offset: int, total: int | None, data: bytes) -> bytes:
    """A ReadBlobResponse, serialised by hand so that the chunk is copied once: fields may come in any order."""
    head = memory_service_pb2.ReadBlobResponse(offset_bytes=offset, total_bytes=total).SerializeToString()
    return b"".join((head, bytes((_DATA_TAG,)), _varint(len(data)), data))


def _varint(number: int) -> bytes:
    """Protobuf's variable-length integer."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _extent(request: memory_service_pb2.ReadBlobRequest, blob: Blob, chunk: int) -> tuple[int, int]:
    """First and end offset; refuses what lies outside, all at once."""
    wrong: list[Violation] = []
    begin, length = request.offset_bytes, request.length_bytes
    if not 0 <= begin <= blob.size_bytes:
        wrong.append(_outside("offset_bytes", begin, f"0..{blob.size_bytes}"))
    if length < 0:
        wrong.append(_outside("length_bytes", length, "0.."))
    if not MIN_CHUNK_BYTES <= chunk <= CHUNK_BYTES:
        wrong.append(_outside("chunk_bytes", chunk, f"{MIN_CHUNK_BYTES}..{CHUNK_BYTES}"))
    if wrong:
        raise InvalidRequest(wrong)
    if request.HasField("expected_generation") and request.expected_generation != GENERATION:
        message = f"blob {blob.id} is in generation {GENERATION}, not {request.expected_generation}; get it again"
        raise Aborted(message, blob_id=blob.id, generation=GENERATION)
    return begin, min(begin + length, blob.size_bytes) if length else blob.size_bytes


def _outside(field: str, value: int, allowed: str) -> Violation:
    return Violation(field=field, message=f"{value} is not within {allowed}", allowed=allowed)


GENERATION = 1
"""Content-addressed blobs never change, so they stay in their first generation."""


def to_blob(blob: Blob) -> blob_pb2.Blob:
    """A blob of a job, on disk."""
    return blob_pb2.Blob(
        id=blob.id,
        sha256=blob.sha256,
        size_bytes=blob.size_bytes,
        written_bytes=blob.size_bytes,
        media_type=blob.media_type,
        tier=blob_pb2.BLOB_TIER_DISK,
        state=blob_pb2.BLOB_STATE_READY,
        origin=blob_pb2.BLOB_ORIGIN_JOB,
        create_time=convert.to_time(blob.create_time_s),
        generation=GENERATION,
    )
