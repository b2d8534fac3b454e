"""All blobs of one server."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Set
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from domains.clock import ClockStep, ExpiryClock
from domains.errors import NotFound
from domains.memory.blobs.access import BlobAccess, BlobReader, check_readable
from domains.memory.blobs.blob import DEVICE_TIERS, Blob, BlobOrigin, BlobSpec, BlobState, BlobTier, blob_id
from domains.memory.blobs.collection import Collection, DeletedBlob
from domains.memory.blobs.creation import Creation, new_id
from domains.memory.blobs.device_memory import DeviceBlobMemory, DeviceBytes
from domains.memory.blobs.files import BlobFiles, DiskBytes, DiskContent
from domains.memory.blobs.freeing import UnfreedBlob
from domains.memory.blobs.hashes import RunningHashes
from domains.memory.blobs.host_memory import HostBytes
from domains.memory.blobs.listeners import BlobListeners
from domains.memory.blobs.listing import LOOKED, BlobFilter, BlobPage, Totals, page_of
from domains.memory.blobs.mapped import ContentLost
from domains.memory.blobs.mapped_tier import MappedBytes
from domains.memory.blobs.owners import BlobOwners
from domains.memory.blobs.power_loss import damaged, machine_restarted, note_boot
from domains.memory.blobs.quotas import BlobAdmission, BlobLimits, NoSessions, Quotas
from domains.memory.blobs.readers import OpenBlobs
from domains.memory.blobs.registration import Registrations
from domains.memory.blobs.requests import BlobRequests
from domains.memory.blobs.roots import BlobRoots
from domains.memory.blobs.rows import BlobRows
from domains.memory.blobs.tiers import ReadableBytes, TierBytes
from domains.memory.blobs.uploads import BlobWriter
from domains.storage import durability

Result = TypeVar("Result")

_log = structlog.get_logger()


class BlobStore:
    """The blobs of one state folder. One event loop."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        folder: Path,
        *,
        roots: BlobRoots | None = None,
        limits: BlobLimits | None = None,
        admission: BlobAdmission | None = None,
        device_memory: DeviceBlobMemory | None = None,
        expiry: ExpiryClock | None = None,
    ) -> None:
        """`admission`: sessions, budgets and reservations, which may refuse a blob. `device_memory`: the workers.

        `expiry`: None: the wall clock.
        """
        expiry = expiry or ExpiryClock()
        expiry.on_step.append(self._move_expiry)
        self.files = BlobFiles(folder, lasting=durability(connection))
        self.listeners = BlobListeners()
        self._rows = BlobRows(connection, folder)
        self._totals = Totals(self._rows)
        self._hashes = RunningHashes()
        self._open = OpenBlobs()
        self._devices = DeviceBytes(device_memory)
        self._mapped = MappedBytes(roots or BlobRoots())
        writable: dict[BlobTier, TierBytes] = {
            BlobTier.DISK: DiskBytes(self.files),
            BlobTier.HOST: HostBytes(),
            **dict.fromkeys(DEVICE_TIERS, self._devices),
        }
        tiers: dict[BlobTier, ReadableBytes] = {**writable, BlobTier.MAPPED: self._mapped}
        self._collection = Collection(self._rows, self._open, tiers, self._hashes, self.listeners, expiry)
        self._access = BlobAccess(
            self._rows, self._open, self._collection, tiers, writable, self._hashes, self.listeners
        )
        quotas, admission = Quotas(self._rows, limits or BlobLimits()), admission or NoSessions()
        self._creation = Creation(self._rows, writable, quotas, admission)
        registrations = Registrations(self._rows, self._mapped, quotas, admission, self._collection.is_needed)
        self.requests = BlobRequests(self._rows, self._access, self._creation, registrations, quotas.limits.keep_for_s)
        """The blobs that clients make."""

    # Blobs that jobs make.

    async def keep(self, data: bytes, media_type: str, owner_id: str) -> Blob:
        """Store a content off the event loop and give it an owner."""
        while True:
            sha256 = await asyncio.to_thread(self.files.write, data)
            # The file that `write` found may have been removed with its last owner since.
            if self.files.path(sha256).is_file():
                return self.adopt(sha256, len(data), media_type, owner_id)

    def adopt(self, sha256: str, size_bytes: int, media_type: str, owner_id: str) -> Blob:
        """Write the row of a stored content, with an owner that needs it until `release`."""
        blob = self._rows.get(blob_id(sha256)) or Blob(
            id=blob_id(sha256),
            sha256=sha256,
            size_bytes=size_bytes,
            media_type=media_type,
            create_time_s=time.time(),
            origin_job_id=owner_id,
        )
        # The content was stored again, so a DELETING or CORRUPT blob is READY again.
        return self._rows.put(msgspec.structs.replace(blob, state=BlobState.READY), maker=owner_id)

    def let_go_made(self, name: str, owner_id: str) -> None:
        """End the use of one blob by the job that made it, before `release` ends all of them."""
        self._rows.unmake(name, owner_id)
        self._collection.settle(name)

    def release(self, owner_id: str) -> int:
        """End all uses by an owner and remove the blobs without another owner. Returns their bytes.

        A blob that is open is removed when its last reader closes.
        """
        return self._collection.release(owner_id)

    def left_by(self, owner_ids: Set[str]) -> list[Blob]:
        """The blobs that releasing all of these owners would remove now."""
        return self._collection.left_by(owner_ids)

    # Blobs that jobs and loaded models use.

    def hold(self, name: str, owner_id: str) -> Blob:
        """Keep the blob for an owner until `let_go` or `release`. Raises why the blob is unreadable."""
        blob = self.look(name)
        check_readable(blob)
        self._rows.hold(blob, owner_id)
        return blob

    def is_held(self, name: str, owner_id: str) -> bool:
        """Whether the owner uses the blob."""
        return owner_id in self._rows.holders.owners(name)

    def holders(self) -> set[str]:
        """All owners that use a blob."""
        return self._rows.holders.owners()

    def let_go(self, name: str, owner_id: str) -> None:
        """End the use of a blob by an owner."""
        self._rows.unhold(name, owner_id)
        self._collection.settle(name)

    async def create_for_transfer(self, spec: BlobSpec, job_id: str = "") -> Blob:
        """Make the destination of a transfer."""
        return await self._creation.make(spec, BlobOrigin.TRANSFER, new_id(), job_id=job_id)

    # All blobs.

    def get(self, name: str) -> Blob:
        """A blob by id, as last seen; BLOB_NOT_FOUND otherwise."""
        return self._access.get(name)

    def look(self, name: str) -> Blob:
        """`get`, after a check whether the file of a mapped blob still exists; the blob is LOST otherwise."""
        blob = self.get(name)
        if blob.tier is BlobTier.MAPPED and blob.state is BlobState.READY:
            try:
                self._mapped.check(blob)
            except ContentLost:
                self._access.mark(name, BlobState.LOST)
        return self.get(name)

    def all(self) -> list[Blob]:
        """All blobs as last seen, oldest first."""
        return [self._access.live(blob) for blob in self._rows.all()]

    def owners_in(self, *tiers: BlobTier) -> BlobOwners:
        """The owners of memory or disk in these tiers, as a function that a pool calls at each measurement."""
        return BlobOwners(self._rows, frozenset(tiers), lambda: self._collection.freeing.unfreed.values())

    def page(self, wanted: BlobFilter, place: int | None, size: int) -> BlobPage:
        """A page of the blobs that pass the filter, newest first, from a place on. It may be empty before the last one."""
        page = page_of(self._rows.newest_first(place), wanted, size)
        return msgspec.structs.replace(page, blobs=tuple(self.look(blob.id) for blob in page.blobs))

    async def each(self, wanted: BlobFilter) -> AsyncIterator[Blob]:
        """The blobs that pass the filter, newest first. Lets the event loop run after each `LOOKED` that it looks at."""
        place: int | None = None
        while True:
            page = self.page(wanted, place, LOOKED)
            for blob in page.blobs:
                yield blob
            if (place := page.next_place) is None:
                return
            await asyncio.sleep(0)

    async def total_bytes(self, wanted: BlobFilter) -> int:
        """The size of all blobs that pass the filter."""
        return await self._totals.total_bytes(wanted)

    def open(self, name: str) -> tuple[Blob, int]:
        """A DISK blob and a descriptor, which the caller closes. BLOB_CORRUPT if the file has another size."""
        blob = self.get(name)
        return blob, DiskContent(self.files, blob).descriptor

    def reading(self, name: str, owner_id: str = "") -> AbstractAsyncContextManager[BlobReader]:
        """Open a blob to read; a delete waits until the reader closes. Opening and each read raise why it is unreadable.

        An owner that holds a DELETING blob may open it: the delete waits for the owner.
        """
        return self._access.reading(name, owner_id)

    def writing(self, name: str) -> AbstractContextManager[BlobWriter]:
        """Open a WRITING blob as its only writer; ILLEGAL_STATE otherwise."""
        return self._access.writing(name)

    async def write_chunk(self, name: str, offset: int, data: bytes, crc32c: int | None = None) -> Blob:
        """Write one chunk. A repeated last chunk finds the blob READY and returns it."""
        return await self._access.write_chunk(name, offset, data, crc32c)

    async def sha256_of(self, name: str, begin: int, end: int, between: Callable[[], None] = lambda: None) -> str:
        """The SHA-256 of a range as the bytes are now, also of a WRITING blob.

        `between` is called between two pieces and may raise to end the computation.
        """
        blob = self.get(name)
        if blob.tier in DEVICE_TIERS and (begin, end) == (0, blob.size_bytes) and blob.size_bytes:
            return await self._devices.sha256(blob, between)
        return await self._access.sha256_of(name, begin, end, between)

    def is_needed(self, name: str, *, besides: Set[str] = frozenset()) -> bool:
        """Whether the blob is open, or owned by a job or loaded model other than `besides`, so that a delete waits."""
        return self._collection.is_needed(name, besides)

    def delete(self, name: str, *, only_if_unused: bool = False) -> DeletedBlob:
        """Delete a blob now, or when it is no longer in use; BLOB_IN_USE instead with `only_if_unused`."""
        return self._collection.delete(self._stored(name), only_if_unused=only_if_unused)

    def discard(self, name: str) -> None:
        """`delete` for a blob that may have been removed already."""
        with suppress(NotFound):
            self.delete(name)

    # Upkeep.

    def collect(self, now_s: float | None = None, where: Callable[[Blob], bool] = lambda blob: True) -> int:
        """Remove the spent blobs that `where` selects, and free again what could not be freed. Returns the removed count."""
        self.retry()
        return self._collection.collect(now_s, where)

    async def collect_in_portions(self, now_s: float | None = None) -> None:
        """`collect` for all blobs, however many; lets the event loop run meanwhile."""
        self.retry()
        await self._collection.collect_in_portions(now_s)

    def spent(self, now_s: float | None = None) -> list[Blob]:
        """The blobs that `collect` would remove."""
        return self._collection.spent(now_s)

    def _move_expiry(self, step: ClockStep) -> None:
        """Move expiry times with the wall clock."""
        moved = [
            msgspec.structs.replace(blob, expire_time_s=expire_time_s)
            for blob in self._rows.all()
            if (expire_time_s := step.moved(blob.expire_time_s)) != blob.expire_time_s
        ]
        self._rows.replace(moved)

    def retry(self) -> None:
        """Free again what could not be freed."""
        self._devices.retry()
        self._collection.freeing.retry()

    def sweep(self, is_owner: Callable[[str], bool]) -> int:
        """Release owners that no longer exist and repair what a crash left, at start. Returns the removed files' number."""
        removed = self._collection.sweep(self.files, is_owner)
        self._check_files()
        return removed

    def _check_files(self) -> None:
        """Mark the blobs that lost bytes in a power failure as CORRUPT."""
        restarted = machine_restarted(self.files.folder.parent)
        lost = damaged(self._rows.all(), self.files, machine_restarted=restarted)
        for blob in lost:
            self._access.mark(blob.id, BlobState.CORRUPT)
        if lost:
            _log.error("blobs on disk are damaged", count=len(lost), machine_restarted=restarted)
        # Without the record, the next start checks again.
        with suppress(OSError):
            note_boot(self.files.folder.parent)

    def device_lost(self, device_id: str) -> None:
        """Mark the blobs of a device as LOST: its worker has ended."""
        self._devices.lost(device_id)
        for blob in self._rows.all():
            if blob.tier in DEVICE_TIERS and blob.device_id == device_id:
                self._hashes.forget(blob.id)
                if blob.state not in (BlobState.DELETING, BlobState.LOST):
                    self.listeners.tell_spoilt(self._rows.put(msgspec.structs.replace(blob, state=BlobState.LOST)))

    @property
    def unfreed(self) -> dict[str, UnfreedBlob]:
        """Removed blobs whose bytes could not be freed yet; `collect` tries again."""
        return {**self._devices.unfreed, **self._collection.freeing.unfreed}

    async def freed(self) -> None:
        """Wait until the workers have freed the deleted blobs."""
        await self._devices.freed()

    def _stored(self, name: str) -> Blob:
        self.get(name)
        stored = self._rows.get(name)
        assert stored is not None, "get has found it"
        return stored
