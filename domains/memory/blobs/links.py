"""Pairs of blob and owner, indexed both ways."""

from collections import defaultdict
from collections.abc import Iterable

_MODEL = "model/"


def of_model(model_id: str) -> str:
    """The owner of the blobs that a model was registered from. It keeps them, and does not count as a reader."""
    return f"{_MODEL}{model_id}"


class BlobLinks:
    """A set of pairs, looked up by either side."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        """`pairs`: (blob id, owner id)."""
        self._by_blob: defaultdict[str, set[str]] = defaultdict(set)
        self._by_owner: defaultdict[str, set[str]] = defaultdict(set)
        for blob_id, owner_id in pairs:
            self.add(blob_id, owner_id)

    def add(self, blob_id: str, owner_id: str) -> None:
        """Add a pair. A pair that is there stays."""
        self._by_blob[blob_id].add(owner_id)
        self._by_owner[owner_id].add(blob_id)

    def remove(self, blob_id: str, owner_id: str) -> None:
        """Remove a pair, if there is one."""
        _discard(self._by_blob, blob_id, owner_id)
        _discard(self._by_owner, owner_id, blob_id)

    def owners(self, blob_id: str | None = None) -> set[str]:
        """The owners of one blob; None: of all blobs."""
        return set(self._by_owner) if blob_id is None else set(self._by_blob.get(blob_id, ()))

    def blobs(self, owner_id: str) -> set[str]:
        """The blobs of an owner."""
        return set(self._by_owner.get(owner_id, ()))

    def readers(self, blob_id: str) -> int:
        """The number of owners of a blob that read it."""
        return sum(not owner.startswith(_MODEL) for owner in self._by_blob.get(blob_id, ()))


def _discard(table: defaultdict[str, set[str]], key: str, value: str) -> None:
    values = table.get(key, set())
    values.discard(value)
    if not values:
        table.pop(key, None)
