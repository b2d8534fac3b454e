"""The chunks of ReadBlob: their ranges, and their serialisation with one copy of the data."""

import asyncio

from deviceops.memory.v1 import memory_service_pb2
from domains.errors import Aborted, InvalidRequest, Violation
from domains.memory.blobs.blob import Blob
from domains.memory.blobs.store import BlobReader

CHUNK_BYTES = 1024 * 1024
MIN_CHUNK_BYTES = 4 * 1024


def read_ahead(reader: BlobReader, offset: int, end: int, chunk: int, total: int | None) -> asyncio.Task[bytes]:
    """Read and serialise the chunk at `offset` on a thread while the chunk before it is sent."""

    async def read() -> bytes:
        return await reader.read(offset, min(chunk, end - offset), lambda data: _response(offset, total, data))

    return asyncio.create_task(read())


_DATA_TAG = memory_service_pb2.ReadBlobResponse.DATA_FIELD_NUMBER << 3 | 2
"""The tag of the field `data` on the wire: its number and the wire type of bytes."""


def _response(offset: int, total: int | None, data: bytes) -> bytes:
    """A serialised ReadBlobResponse whose chunk was copied once. Protobuf allows fields in any order."""
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


def extent_of(request: memory_service_pb2.ReadBlobRequest, blob: Blob) -> tuple[int, int, int]:
    """First and end offset, and the size of a chunk. INVALID_FIELD with all violations."""
    wrong: list[Violation] = []
    begin, length, chunk = request.offset_bytes, request.length_bytes, request.chunk_bytes or CHUNK_BYTES
    if not 0 <= begin <= blob.size_bytes:
        wrong.append(_outside("offset_bytes", begin, f"0..{blob.size_bytes}"))
    if length < 0:
        wrong.append(_outside("length_bytes", length, "0.."))
    if not MIN_CHUNK_BYTES <= chunk <= CHUNK_BYTES:
        wrong.append(_outside("chunk_bytes", chunk, f"{MIN_CHUNK_BYTES}..{CHUNK_BYTES}"))
    if wrong:
        raise InvalidRequest(wrong)
    if request.HasField("expected_generation") and request.expected_generation != blob.generation:
        message = f"blob {blob.id} is in generation {blob.generation}, not {request.expected_generation}; get it again"
        raise Aborted(message, blob_id=blob.id, generation=blob.generation)
    return begin, min(begin + length, blob.size_bytes) if length else blob.size_bytes, chunk


def _outside(field: str, value: int, allowed: str) -> Violation:
    return Violation(field=field, message=f"{value} is not within {allowed}", allowed=allowed)
