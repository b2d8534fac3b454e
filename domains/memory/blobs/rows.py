"""The rows of all blobs, in memory. The rows of the tier DISK, which outlives the server, are in the database as well.

A job *makes* a blob and owns it until the job is deleted. A job or a loaded model *holds* a blob that it uses.
"""

import sqlite3
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from domains.memory.blobs.blob import Blob, BlobOrigin, BlobState, BlobTier
from domains.memory.blobs.links import BlobLinks
from domains.storage import transaction

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Blob).decode


class AnsweredRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that made a blob. The same request again gets the same blob."""

    request_id: str
    """The id with the scope of its method as prefix."""
    digest: str
    """The digest of the whole request."""
    blob_id: str


class BlobRows:
    """All blobs. One thread. A method that writes to the database returns when the write is durable."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._db = connection
        self._folder = folder
        self._blobs: dict[str, Blob] = {}
        self._places: list[int] = []
        """Places of all blobs, in ascending order."""
        self._at: dict[int, str] = {}
        """Ids of all blobs by place."""
        self._requests: dict[str, AnsweredRequest] = {}
        self._requests_of = BlobLinks()
        self._contents = BlobLinks()
        """Blobs by their SHA-256."""
        self._last_place = 0
        self.changes = 0
        """Counts each row that is written or removed."""
        self.listeners: list[Callable[[Blob | None, Blob | None], None]] = []
        """Called after each change of a row, with the blob before (None: new) and after (None: removed)."""
        self.client_count = self.client_bytes = 0
        """The blobs of clients, and the memory or disk that they take. A mapped or LOST one takes none."""
        self._load()

    def _load(self) -> None:
        read = self._db.execute
        blobs = sorted((_decode(body) for (body,) in read("SELECT body FROM blobs")), key=_oldest_first)
        for blob in blobs:
            self._note(blob if blob.place else self._placed(blob))
        self.makers = BlobLinks(read("SELECT blob_id, owner_id FROM blob_owners"))
        self.holders = BlobLinks(read("SELECT blob_id, owner_id FROM blob_holders"))
        for request_id, digest, name in read("SELECT request_id, digest, blob_id FROM blob_requests"):
            self._answered(AnsweredRequest(request_id=request_id, digest=digest, blob_id=name))

    def get(self, name: str) -> Blob | None:
        """A blob by id."""
        return self._blobs.get(name)

    def all(self) -> list[Blob]:
        """All blobs, oldest first."""
        return list(self._blobs.values())

    def newest_first(self, place: int | None) -> Iterator[Blob]:
        """Iterates from a place to older blobs; None: from the newest. No row may change during the iteration."""
        end = len(self._places) if place is None else bisect_right(self._places, place)
        return (self._blobs[self._at[self._places[index]]] for index in range(end - 1, -1, -1))

    def with_content(self, sha256: str) -> list[Blob]:
        """The blobs with this hash."""
        return [self._blobs[name] for name in sorted(self._contents.blobs(sha256))]

    def request(self, request_id: str) -> AnsweredRequest | None:
        """The answered request with this id, as long as its blob exists."""
        return self._requests.get(request_id)

    def needers(self, name: str) -> set[str]:
        """The jobs and loaded models that made or use a blob."""
        return self.makers.owners(name) | self.holders.owners(name)

    def put(self, blob: Blob, *, maker: str = "", request: AnsweredRequest | None = None) -> Blob:
        """Write a new or changed row, with its maker and the request that it answers."""
        blob = blob if blob.place else self._placed(blob)
        if blob.tier is BlobTier.DISK:
            with transaction(self._db, self._folder) as db:
                upsert = (
                    "INSERT INTO blobs (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
                )
                db.execute(upsert, (blob.id, _encode(blob)))
                if maker:
                    db.execute("INSERT OR IGNORE INTO blob_owners (blob_id, owner_id) VALUES (?, ?)", (blob.id, maker))
                if request:
                    row = (request.request_id, request.digest, blob.id)
                    db.execute(
                        "INSERT OR REPLACE INTO blob_requests (request_id, digest, blob_id) VALUES (?, ?, ?)", row
                    )
        self._note(blob)
        if maker:
            self.makers.add(blob.id, maker)
        if request:
            self._answered(request)
        return blob

    def replace(self, blobs: Sequence[Blob]) -> None:
        """Write changed rows, all or none."""
        with transaction(self._db, self._folder) as db:
            rows = [(_encode(blob), blob.id) for blob in blobs if blob.tier is BlobTier.DISK]
            db.executemany("UPDATE blobs SET body = ? WHERE id = ?", rows)
        for blob in blobs:
            self._note(blob)

    def hold(self, blob: Blob, owner_id: str) -> None:
        """Note that the owner uses the blob."""
        if blob.tier is BlobTier.DISK:
            with transaction(self._db, self._folder) as db:
                row = (blob.id, owner_id)
                db.execute("INSERT OR IGNORE INTO blob_holders (blob_id, owner_id) VALUES (?, ?)", row)
        self.holders.add(blob.id, owner_id)

    def unhold(self, name: str, owner_id: str) -> None:
        """Note that the owner no longer uses the blob."""
        if owner_id not in self.holders.owners(name):
            return
        with transaction(self._db, self._folder) as db:
            db.execute("DELETE FROM blob_holders WHERE blob_id = ? AND owner_id = ?", (name, owner_id))
        self.holders.remove(name, owner_id)

    def unmake(self, name: str, owner_id: str) -> None:
        """Note that the blob no longer belongs to the job that made it."""
        if owner_id not in self.makers.owners(name):
            return
        with transaction(self._db, self._folder) as db:
            db.execute("DELETE FROM blob_owners WHERE blob_id = ? AND owner_id = ?", (name, owner_id))
        self.makers.remove(name, owner_id)

    def release(self, owner_id: str, remove: Iterable[str]) -> None:
        """Remove an owner from all blobs, and remove the rows of `remove`, in one transaction."""
        names = list(remove)
        with transaction(self._db, self._folder) as db:
            db.execute("DELETE FROM blob_owners WHERE owner_id = ?", (owner_id,))
            db.execute("DELETE FROM blob_holders WHERE owner_id = ?", (owner_id,))
            self._delete(db, names)
        for links in (self.makers, self.holders):
            for name in links.blobs(owner_id):
                links.remove(name, owner_id)
        self._forget(names)

    def remove(self, names: Iterable[str]) -> None:
        """Remove rows, with their owners and requests."""
        gone = list(names)
        if any(self._blobs[name].tier is BlobTier.DISK for name in gone):
            with transaction(self._db, self._folder) as db:
                self._delete(db, gone)
        self._forget(gone)

    @staticmethod
    def _delete(db: sqlite3.Connection, names: list[str]) -> None:
        rows = [(name,) for name in names]
        for table in ("blob_owners", "blob_holders", "blob_requests"):
            db.executemany(f"DELETE FROM {table} WHERE blob_id = ?", rows)
        db.executemany("DELETE FROM blobs WHERE id = ?", rows)

    def _note(self, blob: Blob) -> None:
        before = self._blobs.get(blob.id)
        self._last_place = max(self._last_place, blob.place)
        self._place(before, blob)
        for sha256 in self._contents.owners(blob.id):
            self._contents.remove(blob.id, sha256)
        if blob.sha256:
            self._contents.add(blob.id, blob.sha256)
        self._blobs[blob.id] = blob
        self._changed(before, blob)

    def _forget(self, names: list[str]) -> None:
        for name in names:
            blob = self._blobs.pop(name, None)
            self._place(blob, None)
            self._changed(blob, None)
            for request_id in self._requests_of.owners(name):
                del self._requests[request_id]
            for links in (self.makers, self.holders, self._requests_of, self._contents):
                for owner_id in links.owners(name):
                    links.remove(name, owner_id)

    def _answered(self, request: AnsweredRequest) -> None:
        self._requests[request.request_id] = request
        self._requests_of.add(request.blob_id, request.request_id)

    def _changed(self, before: Blob | None, after: Blob | None) -> None:
        self.changes += 1
        self._count(before, -1)
        self._count(after, 1)
        for tell in self.listeners:
            tell(before, after)

    def _count(self, blob: Blob | None, step: int) -> None:
        if blob is not None and blob.origin is not BlobOrigin.JOB:
            self.client_count += step
            holds_nothing = blob.tier is BlobTier.MAPPED or blob.state is BlobState.LOST
            self.client_bytes += step * (0 if holds_nothing else blob.size_bytes)

    def _place(self, before: Blob | None, after: Blob | None) -> None:
        """Keep the places equal to the rows."""
        if before is not None and (after is None or after.place != before.place):
            del self._places[bisect_left(self._places, before.place)], self._at[before.place]
            before = None
        if after is not None and before is None:
            insort(self._places, after.place)
            self._at[after.place] = after.id

    def _placed(self, blob: Blob) -> Blob:
        place = max(self._last_place + 1, int(blob.create_time_s * 1e6))
        return msgspec.structs.replace(blob, place=place)


def _oldest_first(blob: Blob) -> tuple[float, str]:
    return blob.place or blob.create_time_s * 1e6, blob.id
