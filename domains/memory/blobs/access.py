"""Opening blobs to read and to write. Notes blobs that turn out LOST or CORRUPT."""

import hashlib
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import msgspec

from domains.errors import DataLoss, ErrorReason, FailedPrecondition, NotFound
from domains.memory.blobs.blob import DEVICE_TIERS, Blob, BlobOrigin, BlobState, BlobTier
from domains.memory.blobs.collection import Collection
from domains.memory.blobs.device_memory import device_lost
from domains.memory.blobs.hashes import RunningHashes
from domains.memory.blobs.listeners import BlobListeners
from domains.memory.blobs.mapped import ContentLost
from domains.memory.blobs.readers import OpenBlobs
from domains.memory.blobs.rows import BlobRows
from domains.memory.blobs.tiers import PIECE_BYTES, Content, ReadableBytes, TierBytes, to_end
from domains.memory.blobs.uploads import BlobWriter

Result = TypeVar("Result")


class BlobReader:
    """A blob that is open for reading. One read at a time."""

    def __init__(self, blob: Blob, content: Content) -> None:
        self.blob = blob
        self._content = content

    async def read(self, offset: int, size: int, then: Callable[[bytes], Result]) -> Result:
        """Read a piece inside the blob off the event loop and call `then` with it on the reading thread."""
        return await self._content.read(offset, size, then)


class BlobAccess:
    """Readers and writers of all blobs."""

    def __init__(
        self,
        rows: BlobRows,
        open_blobs: OpenBlobs,
        collection: Collection,
        tiers: Mapping[BlobTier, ReadableBytes],
        writable: Mapping[BlobTier, TierBytes],
        hashes: RunningHashes,
        listeners: BlobListeners,
    ) -> None:
        self._rows = rows
        self._open = open_blobs
        self._collection = collection
        self._tiers = tiers
        self._writable = writable
        self._hashes = hashes
        self._listeners = listeners

    def get(self, name: str) -> Blob:
        """The blob with its readers and last use; BLOB_NOT_FOUND otherwise."""
        blob = self._rows.get(name)
        if blob is None:
            message = f"there is no blob {name!r}; it may have been deleted with its job or have expired"
            raise NotFound(message, ErrorReason.BLOB_NOT_FOUND, blob_id=name)
        return self.live(blob)

    @asynccontextmanager
    async def reading(self, name: str, owner_id: str = "") -> AsyncGenerator[BlobReader]:
        """Open a blob to read; a delete waits until the reader closes. Opening and each read raise why it is unreadable."""
        blob = self.get(name)
        # A delete waits for the owners that hold the blob, so they can still read it.
        if blob.state is not BlobState.DELETING or owner_id not in self._rows.holders.owners(name):
            check_readable(blob)
        self._open.enter(name)
        try:
            content = await self._tiers[blob.tier].open(blob)
            try:
                yield BlobReader(blob, content)
            finally:
                content.close()
        except ContentLost:
            self.mark(name, BlobState.LOST)
            raise
        except DataLoss as error:
            if error.reason is ErrorReason.BLOB_CORRUPT and error.facts.get("blob_id") == name:
                self.mark(name, BlobState.CORRUPT)
            raise
        finally:
            self._open.leave(name)
            self._collection.settle(name)

    @contextmanager
    def writing(self, name: str) -> Generator[BlobWriter]:
        """Open a WRITING blob as its only writer; ILLEGAL_STATE otherwise."""
        blob = self.get(name)
        if blob.state is BlobState.LOST and blob.tier in DEVICE_TIERS:
            raise device_lost(blob)
        if blob.state is not BlobState.WRITING:
            raise _illegal(blob, f"is {blob.state}; only one that is writing can be written")
        if not self._open.take_writer(name):
            raise _illegal(blob, "is being written by another upload; wait for its end")
        try:
            yield BlobWriter(name, self._rows, self._writable[blob.tier], self._collection, self._hashes)
        finally:
            self._open.give_writer(name)
            self._collection.settle(name)

    async def write_chunk(self, name: str, offset: int, data: bytes, crc32c: int | None = None) -> Blob:
        """Write one chunk. A repeated last chunk finds the blob READY and returns it."""
        blob = self.get(name)
        if blob.state is BlobState.READY and await self._has(blob, offset, data):
            return blob
        with self.writing(name) as writer:
            await writer.write(offset, data, crc32c)
        return self.get(name)

    async def _has(self, blob: Blob, offset: int, data: bytes) -> bool:
        """Whether a client wrote these bytes at this offset."""
        written = blob.origin in (BlobOrigin.UPLOAD, BlobOrigin.TRANSFER) and blob.tier is not BlobTier.MAPPED
        if not written or not data or not 0 <= offset <= blob.size_bytes - len(data):
            return False
        async with self.reading(blob.id) as reader:
            return await reader.read(offset, len(data), lambda found: found == data)

    async def sha256_of(self, name: str, begin: int, end: int, between: Callable[[], None]) -> str:
        """The SHA-256 of a range as the bytes are now, also of a WRITING blob. `between` is called between two pieces."""
        blob = self.get(name)
        digest = hashlib.sha256()
        content = await self._tiers[blob.tier].open(blob)
        try:
            for offset in range(begin, end, PIECE_BYTES):
                between()
                await to_end(content.read(offset, min(PIECE_BYTES, end - offset), digest.update))
        finally:
            content.close()
        return digest.hexdigest()

    def live(self, blob: Blob) -> Blob:
        """The blob with its readers and last use."""
        count = self._open.readers(blob.id) + self._rows.holders.readers(blob.id)
        return msgspec.structs.replace(blob, reader_count=count, access_time_s=self._open.access_s(blob.id))

    def mark(self, name: str, state: BlobState) -> None:
        """Set the state of a READY blob to LOST or CORRUPT."""
        blob = self._rows.get(name)
        if blob is not None and blob.state is BlobState.READY:
            self._listeners.tell_spoilt(self._rows.put(msgspec.structs.replace(blob, state=state)))


def check_readable(blob: Blob) -> None:
    """Raise the error of a state in which a blob cannot be read."""
    match blob.state:
        case BlobState.READY:
            return
        case BlobState.CORRUPT:
            message = f"the bytes of blob {blob.id} are damaged; make or send it again"
            raise DataLoss(message, ErrorReason.BLOB_CORRUPT, blob_id=blob.id)
        case BlobState.LOST if blob.tier in DEVICE_TIERS:
            raise device_lost(blob)
        case BlobState.LOST:
            raise _illegal(blob, "is lost: its file has vanished or shrunk; register it again")
        case _:
            raise _illegal(blob, f"is {blob.state}; only one that is ready can be read")


def _illegal(blob: Blob, why: str) -> FailedPrecondition:
    message = f"blob {blob.id} {why}"
    return FailedPrecondition(
        message, ErrorReason.ILLEGAL_STATE, blob_id=blob.id, state=blob.state, written_bytes=blob.written_bytes
    )
