"""Blobs as owners of memory in a pool. Called every second, and computed again only after a change."""

from collections.abc import Callable, Iterable, Sequence

from domains.memory.blobs.blob import Blob, BlobState, BlobTier
from domains.memory.blobs.freeing import UnfreedBlob
from domains.memory.blobs.rows import BlobRows
from domains.memory.measure import MemoryOwner, OwnerKind


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
        self._seen_changes: int | None = None
        self._owners: Sequence[MemoryOwner] = ()

    def __call__(self) -> Sequence[MemoryOwner]:
        """The owners, largest first."""
        if self._seen_changes != self._rows.changes:
            self._seen_changes = self._rows.changes
            held = (blob for blob in self._rows.all() if blob.tier in self._tiers and _takes_memory(blob))
            self._owners = sorted(map(_owner, held), key=lambda owner: -owner.live_bytes)
        unfreed = [_owner(each.blob) for each in self._unfreed() if each.blob.tier in self._tiers]
        return [*self._owners, *unfreed] if unfreed else self._owners


def _takes_memory(blob: Blob) -> bool:
    """Whether the blob takes memory. A LOST one takes none: its worker has ended."""
    return bool(blob.size_bytes) and blob.state is not BlobState.LOST


def _owner(blob: Blob) -> MemoryOwner:
    return MemoryOwner(kind=OwnerKind.BLOB, id=blob.id, session_id=blob.session_id, live_bytes=blob.size_bytes)
