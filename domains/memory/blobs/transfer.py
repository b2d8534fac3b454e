"""A blob's bytes into another tier, or into a blob that is being written: piece by piece, verified, and all or nothing.

Cancelled or failed between two pieces, it leaves the source as it was and takes back what it wrote. The copy becomes READY
only after it was read back and is equal. The source of a move is deleted by its job, once that has written down what
was done: killed in between, it finds the source and copies it again.
"""

import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from domains.errors import DataLoss, ErrorReason
from domains.memory.blobs.blob import Blob, BlobSpec
from domains.memory.blobs.store import BlobReader, BlobStore
from domains.memory.blobs.tiers import PIECE_BYTES
from domains.memory.blobs.transfer_request import ExistingBlob, NewBlob, TransferReport, TransferRequest, check_transfer
from domains.memory.blobs.uploads import BlobWriter

Progress = Callable[[int, int], None]
"""Bytes done, bytes in all."""

_SHORTEST_S = 1e-6


class _Stopped(Exception):
    """Somebody wants it to end."""


async def transfer(
    store: BlobStore,
    asked: TransferRequest,
    *,
    progress: Progress,
    should_stop: Callable[[], bool],
    job_id: str = "",
) -> TransferReport | None:
    """Do it, for a job that may hold the source. None: it was stopped, and nothing is left of it; cancelling the task does
    the same."""
    length = check_transfer(store, asked, job_id)

    def go_on() -> None:
        if should_stop():
            raise _Stopped

    try:
        async with store.reading(asked.blob_id, job_id) as reader:
            return await _Transfer(store, asked, reader, length, job_id).run(progress, go_on)
    except _Stopped:
        return None


class _Transfer:
    """One run."""

    def __init__(self, store: BlobStore, asked: TransferRequest, reader: BlobReader, length: int, job_id: str) -> None:
        self._store = store
        self._asked = asked
        self._reader = reader
        self._length = length
        self._job_id = job_id
        self._digest = hashlib.sha256()

    async def run(self, progress: Progress, go_on: Callable[[], None]) -> TransferReport:
        """Copy, verify, and only then make the copy READY. `go_on` raises where it is to stop."""
        if not self._length:
            return self._report(await self._nothing(), 0.0, None)
        async with self._destination() as writer:
            name, begin = writer.blob.id, _begin(self._asked)
            copy_s = await self._copy(writer, begin, progress, go_on)
            verify_s = await self._verify(name, begin, go_on) if self._asked.verify else None
            go_on()
            blob = writer.blob if writer.blob.missing_bytes else await writer.finish()
        return self._report(self._store.get(blob.id), copy_s, verify_s)

    def _report(self, blob: Blob, copy_s: float, verify_s: float | None) -> TransferReport:
        return TransferReport(
            blob=blob,
            transferred_bytes=self._length,
            copy_s=copy_s,
            bytes_per_second=self._length / copy_s if copy_s > _SHORTEST_S else None,
            verify_s=verify_s,
            verified=verify_s is not None,
            source_deleted=self._asked.move,
        )

    async def _copy(self, writer: BlobWriter, begin: int, progress: Progress, go_on: Callable[[], None]) -> float:
        """Seconds that it took."""
        begin_s = time.monotonic()
        for done in range(0, self._length, PIECE_BYTES):
            go_on()
            size = min(PIECE_BYTES, self._length - done)
            data = await self._reader.read(self._asked.offset_bytes + done, size, self._hashed)
            await writer.put(begin + done, data)
            progress(done + size, self._length)
        return time.monotonic() - begin_s

    def _hashed(self, data: bytes) -> bytes:
        self._digest.update(data)
        return data

    async def _verify(self, name: str, begin: int, go_on: Callable[[], None]) -> float:
        """Read the copy back: equal to what was read, and where all was read, to the source's own hash. Seconds."""
        begin_s = time.monotonic()
        source, read = self._reader.blob, self._digest.hexdigest()
        if self._length == source.size_bytes and source.sha256 not in ("", read):
            message = f"blob {source.id} has the sha256 {read}, {source.sha256} was stored; nothing was copied"
            raise DataLoss(message, ErrorReason.BLOB_CORRUPT, blob_id=source.id, sha256=read)
        found = await self._store.sha256_of(name, begin, begin + self._length, go_on)
        if found != read:
            message = (
                f"the copy of blob {source.id} reads back as {found} instead of {read}; it was taken back, try again"
            )
            raise DataLoss(message, ErrorReason.BLOB_CORRUPT, copy_id=name, sha256=found, expected_sha256=read)
        return time.monotonic() - begin_s

    async def _nothing(self) -> Blob:
        """No bytes: an empty new blob, or the other as it is."""
        match self._asked.destination:
            case NewBlob():
                return await self._store.create_for_transfer(self._spec(), self._job_id)
            case ExistingBlob(blob_id=name):
                return self._store.get(name)

    def _destination(self) -> AbstractAsyncContextManager[BlobWriter]:
        match self._asked.destination:
            case NewBlob():
                return _into_new(self._store, self._spec(), self._job_id)
            case ExistingBlob(blob_id=name):
                return _into_existing(self._store, name)

    def _spec(self) -> BlobSpec:
        asked, source = self._asked, self._reader.blob
        destination = asked.destination
        assert isinstance(destination, NewBlob), "only a new blob is specified"
        return BlobSpec(
            size_bytes=self._length,
            tier=destination.tier,
            device_id=destination.device_id,
            media_type=source.media_type,
            sha256=source.sha256 if self._length == source.size_bytes else "",
            keep_for_s=asked.keep_for_s,
            session_id=asked.session_id,
            reservation_id=asked.reservation_id,
            labels=source.labels,
        )


def _begin(asked: TransferRequest) -> int:
    return asked.destination.offset_bytes if isinstance(asked.destination, ExistingBlob) else 0


@asynccontextmanager
async def _into_new(store: BlobStore, spec: BlobSpec, job_id: str) -> AsyncGenerator[BlobWriter]:
    """A new blob that is gone again if anything fails."""
    blob = await store.create_for_transfer(spec, job_id)
    try:
        with store.writing(blob.id) as writer:
            yield writer
    except BaseException:
        store.discard(blob.id)
        raise


@asynccontextmanager
async def _into_existing(store: BlobStore, name: str) -> AsyncGenerator[BlobWriter]:
    """A blob that has as many bytes as before if anything fails."""
    with store.writing(name) as writer:
        before = writer.blob.written_bytes
        try:
            yield writer
        except BaseException:
            writer.rewind(before)
            raise
