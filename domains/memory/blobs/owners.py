"""What blobs hold, as owners of a pool: asked every second, reckoned only after a change."""

from collections.abc import Sequence

from domains.memory.blobs.blob import Blob, BlobTier
from domains.memory.blobs.rows import BlobRows
from domains.memory.measure import MemoryOwner, OwnerKind


class BlobOwners:
    """Of the blobs in some tiers."""

    def __init__(self, rows: BlobRows, tiers: frozenset[BlobTier]) -> None:
        self._rows = rows
        self._tiers = tiers
        self._seen_changes = -1
        self._owners: Sequence[MemoryOwner] = ()

    def __call__(self) -> Sequence[MemoryOwner]:
        """The largest first."""
        if self._seen_changes != self._rows.changes:
            self._seen_changes = self._rows.changes
            held = (blob for blob in self._rows.all() if blob.tier in self._tiers and blob.size_bytes)
            self._owners = sorted(map(_owner, held), key=lambda owner: -owner.live_bytes)
        return self._owners


def _owner(blob: Blob) -> MemoryOwner:
    return MemoryOwner(kind=OwnerKind.BLOB, id=blob.id, session_id=blob.session_id, live_bytes=blob.size_bytes)
