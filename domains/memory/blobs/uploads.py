"""How bytes come into a blob: in order, without gaps, by one writer at a time, hashed on the way.

`written_bytes` is the durable truth: it rises after a piece is in its place, so that an upload which was cut, or whose
server died, goes on from there. The hash is carried along in memory; a new process reckons it again from what is there.
"""

import asyncio
import time
from collections.abc import Callable

import google_crc32c
import msgspec

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, InvalidRequest, ResourceExhausted, Violation
from domains.memory.blobs.blob import Blob, BlobState
from domains.memory.blobs.collection import Collection
from domains.memory.blobs.hashes import RunningHash, RunningHashes
from domains.memory.blobs.rows import BlobRows
from domains.memory.blobs.tiers import PIECE_BYTES, TierBytes, to_end

_crc32c: Callable[[bytes], int] = google_crc32c.value

MAX_CHUNK_BYTES = PIECE_BYTES


class BlobWriter:
    """The one writer of a blob. Not to be used by two tasks at once."""

    def __init__(
        self, name: str, rows: BlobRows, memory: TierBytes, collection: Collection, hashes: RunningHashes
    ) -> None:
        self._name = name
        self._rows = rows
        self._memory = memory
        self._collection = collection
        self._hashes = hashes

    @property
    def blob(self) -> Blob:
        """As it is now; ILLEGAL_STATE if it was deleted meanwhile, or lost."""
        blob = self._rows.get(self._name)
        if blob is None or blob.state not in (BlobState.WRITING, BlobState.READY):
            state = blob.state if blob else "deleted"
            message = f"blob {self._name} is {state}; begin anew"
            raise FailedPrecondition(message, ErrorReason.ILLEGAL_STATE, blob_id=self._name, state=state)
        return blob

    async def write(self, offset: int, data: bytes, crc32c: int | None = None) -> Blob:
        """One chunk; with the last byte the blob is hashed and READY. What was written before is not written again."""
        blob = await self._take(offset, data, crc32c, seal=True)
        # Complete and not READY: a transfer into it has ended with its last byte, or a crash has ended that.
        return await self.finish() if blob.state is BlobState.WRITING and not blob.missing_bytes else blob

    async def put(self, offset: int, data: bytes) -> Blob:
        """`write` that leaves the blob WRITING, also with its last byte, until `finish`."""
        return await self._take(offset, data, None, seal=False)

    async def _take(self, offset: int, data: bytes, crc32c: int | None, *, seal: bool) -> Blob:
        blob = self.blob
        _check_chunk(blob, offset, data, crc32c)
        fresh = data[blob.written_bytes - offset :]
        return await to_end(self._append(blob, fresh, seal=seal)) if fresh else blob

    async def _append(self, blob: Blob, fresh: bytes, *, seal: bool) -> Blob:
        running = await self._hashes.upto(blob, self._memory, blob.written_bytes)
        await self._memory.write(blob, blob.written_bytes, fresh)
        await asyncio.to_thread(running.add, fresh)
        blob = self.blob
        missing = blob.missing_bytes - len(fresh)
        longer = msgspec.structs.replace(blob, missing_bytes=missing, expire_time_s=_expiry(blob))
        # The last bytes and READY are one row: no crash leaves a complete blob that nobody finishes.
        return self._rows.put(longer) if missing or not seal else self._sealed(longer, running)

    def rewind(self, written_bytes: int) -> None:
        """Take back what was written behind a place, as if it had never come. What is complete or gone stays so."""
        blob = self._rows.get(self._name)
        if blob is not None and blob.state is BlobState.WRITING:
            self._rows.put(msgspec.structs.replace(blob, missing_bytes=blob.size_bytes - written_bytes))

    async def finish(self) -> Blob:
        """All bytes are there: READY, or BLOB_CORRUPT and gone."""
        blob = self.blob
        running = await self._hashes.upto(blob, self._memory, blob.size_bytes)
        return self._sealed(self.blob, running)

    def _sealed(self, blob: Blob, running: RunningHash) -> Blob:
        sha256 = running.digest.hexdigest()
        self._hashes.forget(blob.id)
        if blob.expected_sha256 and sha256 != blob.expected_sha256:
            self._collection.remove([blob])
            raise wrong_content(blob, sha256)
        return self._rows.put(
            msgspec.structs.replace(blob, state=BlobState.READY, sha256=sha256, expire_time_s=_expiry(blob))
        )


def wrong_content(blob: Blob, found: str) -> DataLoss:
    """The error for an upload whose bytes are not those that it announced."""
    message = f"blob {blob.id} came with the sha256 {found}, not {blob.expected_sha256}; it is gone, send it again"
    return DataLoss(
        message, ErrorReason.BLOB_CORRUPT, blob_id=blob.id, sha256=found, expected_sha256=blob.expected_sha256
    )


def expiry(keep_for_s: float | None) -> float | None:
    """When something is over that is kept so long from now."""
    return None if keep_for_s is None else time.time() + keep_for_s


def _expiry(blob: Blob) -> float | None:
    return expiry(blob.keep_for_s)


def _check_chunk(blob: Blob, offset: int, data: bytes, crc32c: int | None) -> None:
    if len(data) > MAX_CHUNK_BYTES:
        message = f"a chunk has {len(data)} bytes; at most {MAX_CHUNK_BYTES} fit, send it in parts"
        raise ResourceExhausted(message, ErrorReason.MESSAGE_TOO_LARGE, size_bytes=len(data), limit=MAX_CHUNK_BYTES)
    wrong = _misplaced(blob, offset, len(data))
    if crc32c is not None and not 0 <= crc32c <= 0xFFFFFFFF:
        wrong.append(Violation(field="chunk.crc32c", message=f"{crc32c} is no CRC-32C", allowed="0..4294967295"))
    if wrong:
        raise InvalidRequest(wrong, written_bytes=blob.written_bytes, size_bytes=blob.size_bytes)
    if crc32c is not None and _crc32c(data) != crc32c:
        message = (
            f"the chunk at {offset} of blob {blob.id} does not match its CRC-32C; nothing was written, send it again"
        )
        raise DataLoss(message, ErrorReason.BLOB_CORRUPT, blob_id=blob.id, offset_bytes=offset, crc32c=_crc32c(data))


def _misplaced(blob: Blob, offset: int, size: int) -> list[Violation]:
    field = "chunk.offset_bytes"
    if not 0 <= offset <= blob.written_bytes:
        message = (
            f"{offset} leaves a gap: {blob.written_bytes} bytes are written, the next chunk begins there at the latest"
        )
        return [Violation(field=field, message=message, allowed=f"0..{blob.written_bytes}")]
    if offset + size > blob.size_bytes:
        message = f"{size} bytes at {offset} go beyond the blob's {blob.size_bytes}"
        return [Violation(field="chunk.data", message=message, allowed=f"at most {blob.size_bytes - offset} bytes")]
    return []
