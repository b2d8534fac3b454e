"""Blobs as owners of memory in a pool. A measurement each second reads them, so that a change costs little and a reading
without a change nothing, however many blobs there are."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence

from domains.memory.blobs.blob import Blob, BlobState, BlobTier
from domains.memory.blobs.freeing import UnfreedBlob
from domains.memory.blobs.rows import BlobRows
from domains.memory.measure import NAMED_BLOBS, MemoryOwner, OwnerKind


class BlobOwners:
    """The owners among the blobs of some tiers."""

    def __init__(
        self,
        rows: BlobRows,
        tiers: frozenset[BlobTier],
        unfreed: Callable[[], Iterable[UnfreedBlob]] = lambda: (),
    ) -> None:
        """`unfreed`: removed blobs that still take memory."""
        self._rows = rows
        self._tiers = tiers
        self._unfreed = unfreed
        self._by_size = sorted(_place(blob) for blob in rows.all() if self._counts(blob))
        """Size below zero, and id: largest first."""
        self._bytes = -sum(size for size, _ in self._by_size)
        self._owners: Sequence[MemoryOwner] | None = None
        rows.listeners.append(self._changed)

    def __call__(self) -> Sequence[MemoryOwner]:
        """The owners, the `NAMED_BLOBS` largest first, then one without an id: the others together."""
        if self._owners is None:
            self._owners = self._read()
        unfreed = [_owner(each.blob) for each in self._unfreed() if each.blob.tier in self._tiers]
        return [*self._owners, *unfreed] if unfreed else self._owners

    def _read(self) -> Sequence[MemoryOwner]:
        blobs = (self._rows.get(name) for _, name in self._by_size[:NAMED_BLOBS])
        named = [_owner(blob) for blob in blobs if blob]
        rest = self._bytes - sum(owner.live_bytes for owner in named)
        return [*named, MemoryOwner(kind=OwnerKind.BLOB, live_bytes=rest)] if rest else named

    def _changed(self, before: Blob | None, after: Blob | None) -> None:
        if before is not None and self._counts(before):
            del self._by_size[bisect_left(self._by_size, _place(before))]
            self._bytes -= before.size_bytes
            self._owners = None
        if after is not None and self._counts(after):
            insort(self._by_size, _place(after))
            self._bytes += after.size_bytes
            self._owners = None

    def _counts(self, blob: Blob) -> bool:
        """Whether the blob takes memory in these tiers. A LOST one takes none: its worker has ended."""
        return blob.tier in self._tiers and bool(blob.size_bytes) and blob.state is not BlobState.LOST


def _place(blob: Blob) -> tuple[int, str]:
    return -blob.size_bytes, blob.id


def _owner(blob: Blob) -> MemoryOwner:
    return MemoryOwner(kind=OwnerKind.BLOB, id=blob.id, session_id=blob.session_id, live_bytes=blob.size_bytes)
