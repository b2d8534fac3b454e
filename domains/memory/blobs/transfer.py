"""Copying a blob's bytes into another tier, or into a WRITING blob: in pieces, verified, all or nothing.

A transfer that is cancelled or fails leaves the source as it was and discards what it wrote. The copy becomes READY only
after it was read back and compared. The job of a move deletes the source after its end is stored: a server that is killed
in between still has the source and copies it again.
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
"""Called with the copied bytes and the bytes in all."""

_SHORTEST_S = 1e-6


class _Stopped(Exception):
    """The transfer is to stop."""


async def transfer(
    store: BlobStore,
    asked: TransferRequest,
    *,
    progress: Progress,
    should_stop: Callable[[], bool],
    job_id: str = "",
) -> TransferReport | None:
    """Run a transfer for a job that may hold the source. None: it was stopped, and nothing is left of it.

    Cancelling the task stops it as well.
    """
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
    """One run of a transfer."""

    def __init__(self, store: BlobStore, asked: TransferRequest, reader: BlobReader, length: int, job_id: str) -> None:
        self._store = store
        self._asked = asked
        self._reader = reader
        self._length = length
        self._job_id = job_id
        self._digest = hashlib.sha256()

    async def run(self, progress: Progress, go_on: Callable[[], None]) -> TransferReport:
        """Copy, verify, and then make the copy READY. `go_on` raises if the transfer is to stop."""
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
        """Copy all pieces. Returns the seconds."""
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
        """Compare the copy with the bytes that were read, and a whole blob with its stored hash. Returns the seconds."""
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
        """The result of a transfer without bytes: an empty new blob, or the existing one as it is."""
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
    """Write into a new blob, which is removed if the transfer fails."""
    blob = await store.create_for_transfer(spec, job_id)
    try:
        with store.writing(blob.id) as writer:
            yield writer
    except BaseException:
        store.discard(blob.id)
        raise


@asynccontextmanager
async def _into_existing(store: BlobStore, name: str) -> AsyncGenerator[BlobWriter]:
    """Write into a WRITING blob, which is rewound if the transfer fails."""
    with store.writing(name) as writer:
        before = writer.blob.written_bytes
        try:
            yield writer
        except BaseException:
            writer.rewind(before)
            raise
