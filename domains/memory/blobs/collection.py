"""Removes blobs that were deleted or have expired, or that no job needs any more. A blob in use stays until it is free.

The row is removed first, in one transaction, then the bytes. A crash in between leaves bytes without a row, which the next
start sweeps; a row always has its bytes. Bytes that could not be freed are tried again (`freeing`). A job needs the blobs
that it made until the job is deleted.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Set

import msgspec

from domains.errors import ErrorReason, FailedPrecondition
from domains.memory.blobs.blob import Blob, BlobOrigin, BlobState, BlobTier
from domains.memory.blobs.files import BlobFiles, file_name
from domains.memory.blobs.freeing import Freeing
from domains.memory.blobs.hashes import RunningHashes
from domains.memory.blobs.listeners import BlobListeners
from domains.memory.blobs.listing import LOOKED
from domains.memory.blobs.readers import OpenBlobs
from domains.memory.blobs.rows import BlobRows
from domains.memory.blobs.tiers import ReadableBytes


class DeletedBlob(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a delete."""

    deferred: bool
    """The bytes stay until the last reader and the last owner are gone."""
    holder_ids: tuple[str, ...] = ()
    """Jobs and loaded models that use the blob."""


class Collection:
    """The removal of blobs."""

    def __init__(
        self,
        rows: BlobRows,
        open_blobs: OpenBlobs,
        tiers: Mapping[BlobTier, ReadableBytes],
        hashes: RunningHashes,
        listeners: BlobListeners,
        expiry_now: Callable[[], float],
    ) -> None:
        """`expiry_now`: see `domains.clock.ExpiryClock`."""
        self._rows = rows
        self._open = open_blobs
        self._hashes = hashes
        self._listeners = listeners
        self._expiry_now = expiry_now
        self.freeing = Freeing(tiers, lambda name: rows.get(name) is not None)

    def is_needed(self, name: str, besides: Set[str] = frozenset()) -> bool:
        """Whether the blob is open, or owned by a job or loaded model other than `besides`."""
        return self._open.is_open(name) or bool(self._rows.needers(name) - besides)

    def delete(self, blob: Blob, *, only_if_unused: bool) -> DeletedBlob:
        """Delete a blob now, or when it is no longer in use; BLOB_IN_USE instead with `only_if_unused`."""
        if not self.is_needed(blob.id):
            self.remove([blob])
            return DeletedBlob(deferred=False)
        holders = tuple(sorted(self._rows.needers(blob.id)))
        if only_if_unused:
            readers = self._open.readers(blob.id)
            message = f"blob {blob.id} is in use by {len(holders)} jobs or loaded models and {readers} open reads"
            facts = {"blob_id": blob.id, "holder_ids": ",".join(holders), "readers": readers}
            raise FailedPrecondition(message, ErrorReason.BLOB_IN_USE, **facts)
        if blob.state is not BlobState.DELETING:
            self._rows.put(msgspec.structs.replace(blob, state=BlobState.DELETING))
        return DeletedBlob(deferred=True, holder_ids=holders)

    def remove(self, blobs: list[Blob]) -> None:
        """Remove the rows, then free the bytes."""
        if not blobs:
            return
        self._rows.remove(blob.id for blob in blobs)
        self._free(blobs)

    def settle(self, name: str) -> None:
        """Remove a blob that waited only for the reader, writer or owner that has left it."""
        blob = self._rows.get(name)
        if blob is not None and self._goes_unneeded(blob) and not self.is_needed(name):
            self.remove([blob])

    def release(self, owner_id: str) -> int:
        """End all uses by an owner. Returns the bytes of the blobs that were removed with it."""
        touched = self._rows.makers.blobs(owner_id) | self._rows.holders.blobs(owner_id)
        gone = [blob for name in touched if (blob := self._rows.get(name)) and self._goes_with(blob, owner_id)]
        self._rows.release(owner_id, [blob.id for blob in gone])
        self._free(gone)
        return sum(blob.size_bytes for blob in gone)

    def left_by(self, owner_ids: Set[str]) -> list[Blob]:
        """The blobs that releasing all of these owners would remove."""
        links = (self._rows.makers, self._rows.holders)
        touched = {name for owner_id in owner_ids for link in links for name in link.blobs(owner_id)}
        found = [blob for name in touched if (blob := self._rows.get(name))]
        return [blob for blob in found if self._goes_unneeded(blob) and not self.is_needed(blob.id, owner_ids)]

    def _goes_with(self, blob: Blob, owner_id: str) -> bool:
        alone = self._rows.needers(blob.id) == {owner_id} and not self._open.is_open(blob.id)
        return alone and self._goes_unneeded(blob)

    @staticmethod
    def _goes_unneeded(blob: Blob) -> bool:
        """Whether the blob is removed when its last owner leaves: a deleted one, or a job's without an expiry."""
        return blob.state is BlobState.DELETING or (blob.origin is BlobOrigin.JOB and blob.expire_time_s is None)

    def collect(self, now_s: float | None = None, where: Callable[[Blob], bool] = lambda blob: True) -> int:
        """Remove the blobs of `spent` that `where` selects. Returns their number."""
        return self._remove_spent([blob for blob in self.spent(now_s) if where(blob)])

    async def collect_in_portions(self, now_s: float | None = None) -> None:
        """`collect` that lets the event loop run after each `LOOKED` blobs that it looks at."""
        names = [blob.id for blob in self._rows.all()]
        for begin in range(0, len(names), LOOKED):
            # The loop has run since: a blob may have changed or be gone.
            portion = [blob for name in names[begin : begin + LOOKED] if (blob := self._rows.get(name))]
            self._remove_spent(self._spent_of(portion, self._expiry_now() if now_s is None else now_s))
            await asyncio.sleep(0)

    def _remove_spent(self, gone: list[Blob]) -> int:
        self.remove(gone)
        for blob in gone:
            if not self._goes_unneeded(blob):
                self._listeners.tell_expired(blob)
        return len(gone)

    def spent(self, now_s: float | None = None) -> list[Blob]:
        """Blobs that have expired or have lost their last owner, and that are not in use."""
        return self._spent_of(self._rows.all(), self._expiry_now() if now_s is None else now_s)

    def _spent_of(self, blobs: Iterable[Blob], now_s: float) -> list[Blob]:
        return [blob for blob in blobs if self._is_over(blob, now_s) and not self.is_needed(blob.id)]

    def _is_over(self, blob: Blob, now_s: float) -> bool:
        expired = blob.expire_time_s is not None and blob.expire_time_s <= now_s
        return expired or self._goes_unneeded(blob)

    def sweep(self, files: BlobFiles, is_owner: Callable[[str], bool]) -> int:
        """Repair what a crash left, at start before the first read. Returns the number of files without a row."""
        for owner_id in self._rows.makers.owners() | self._rows.holders.owners():
            if not is_owner(owner_id):
                self.release(owner_id)
        self.remove([blob for blob in self._rows.all() if _is_broken(blob, files)])
        self.collect()
        return files.sweep(file_name(blob) for blob in self._rows.all())

    def _free(self, blobs: list[Blob]) -> None:
        for blob in blobs:
            self.freeing.free(blob)
            self._open.forget(blob.id)
            self._hashes.forget(blob.id)


def _is_broken(blob: Blob, files: BlobFiles) -> bool:
    """Whether the blob is an unfinished transfer, whose job runs again, or an unfinished upload without its file."""
    unfinished = blob.state is BlobState.WRITING
    return unfinished and (blob.origin is BlobOrigin.TRANSFER or files.size(blob.id) != blob.size_bytes)
