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
_INLINE_READ_BYTES = 4 * 1024 * 1024
"""Files up to this size are in the page cache right after they were written; reading them costs less than a thread."""

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

    async def ReadBlob(
        self, request: memory_service_pb2.ReadBlobRequest, context: Context
    ) -> AsyncIterator[memory_service_pb2.ReadBlobResponse]:
        """A blob's bytes in chunks; the blob stays readable to the end even if it is deleted meanwhile."""
        chunk = request.chunk_bytes or CHUNK_BYTES
        blob, descriptor = self._blobs.open(request.blob_id)
        try:
            begin, end = _extent(request, blob, chunk)
            total: int | None = blob.size_bytes
            for offset in range(begin, max(end, begin + 1), chunk):
                size = min(chunk, end - offset)
                data = await _read(descriptor, size, offset, blob.size_bytes)
                yield memory_service_pb2.ReadBlobResponse(offset_bytes=offset, data=data, total_bytes=total)
                total = None
        finally:
            os.close(descriptor)


async def _read(descriptor: int, size: int, offset: int, file_bytes: int) -> bytes:
    if file_bytes <= _INLINE_READ_BYTES:
        return os.pread(descriptor, size, offset)
    return await asyncio.to_thread(os.pread, descriptor, size, offset)


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
