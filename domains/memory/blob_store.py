"""Blobs on disk: one file for each content, named by its hash, and who needs it.

A blob is needed by the jobs that made it. When the last of them is deleted, so is the file; on POSIX a reader who has it
open reads to the end all the same. A file is written beside its place and renamed into it, so that a crash leaves no half
blob under a good name; what it may leave (a file that no row names) is swept at the next start.
"""

import asyncio
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from domains.errors import DataLoss, ErrorReason, NotFound
from domains.memory.blob import Blob, blob_id
from domains.storage import storage_errors, transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob_owners (
  blob_id TEXT NOT NULL REFERENCES blobs (id), owner_id TEXT NOT NULL, PRIMARY KEY (owner_id, blob_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blob_owners_by_blob ON blob_owners (blob_id);
"""

_ONLY_OF = """
SELECT body FROM blobs WHERE id IN (SELECT blob_id FROM blob_owners WHERE owner_id = ?)
  AND NOT EXISTS (SELECT 1 FROM blob_owners WHERE blob_id = blobs.id AND owner_id <> ?)
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Blob).decode


class BlobFiles:
    """The files. Safe to call from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, sha256: str) -> Path:
        """Where the content with this hash lies."""
        return self.folder / sha256[:2] / sha256

    def write(self, data: bytes) -> str:
        """Store a content and answer its sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        with storage_errors(self.folder):
            if path.is_file() and path.stat().st_size == len(data):
                return sha256
            path.parent.mkdir(exist_ok=True, mode=0o700)
            beside = path.with_suffix(f".{os.getpid()}-{time.monotonic_ns()}")
            try:
                beside.write_bytes(data)
                beside.rename(path)
            except OSError:
                beside.unlink(missing_ok=True)
                raise
        return sha256

    def sweep(self, wanted: Iterable[str]) -> int:
        """Remove every file that is not wanted (hashes); how many there were."""
        keep = set(wanted)
        stray = [file for file in self.folder.glob("*/*") if file.name not in keep]
        for file in stray:
            file.unlink(missing_ok=True)
        return len(stray)


class BlobStore:
    """The blobs of one state folder. One thread; the files may be written and read on others."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._db = connection
        self.files = BlobFiles(folder)
        with storage_errors(folder):
            connection.executescript(_SCHEMA)

    async def keep(self, data: bytes, media_type: str, owner_id: str) -> Blob:
        """Write a content, off the event loop, and give it an owner."""
        while True:
            sha256 = await asyncio.to_thread(self.files.write, data)
            # The last owner of the same bytes may have let go of the file since `write` found it there.
            if self.files.path(sha256).is_file():
                return self.adopt(sha256, len(data), media_type, owner_id)

    def adopt(self, sha256: str, size_bytes: int, media_type: str, owner_id: str) -> Blob:
        """Give a stored content its row, and an owner that needs it."""
        known = self._row(blob_id(sha256))
        blob = known or Blob(
            id=blob_id(sha256), sha256=sha256, size_bytes=size_bytes, media_type=media_type, create_time_s=time.time()
        )
        with transaction(self._db, self.files.folder) as db:
            if known is None:
                db.execute("INSERT INTO blobs (id, body) VALUES (?, ?)", (blob.id, _encode(blob)))
            db.execute("INSERT OR IGNORE INTO blob_owners (blob_id, owner_id) VALUES (?, ?)", (blob.id, owner_id))
        return blob

    def get(self, name: str) -> Blob:
        """By id; BLOB_NOT_FOUND otherwise."""
        blob = self._row(name)
        if blob is None:
            message = f"there is no blob {name!r}; it may have been deleted with its job or have expired"
            raise NotFound(message, ErrorReason.BLOB_NOT_FOUND, blob_id=name)
        return blob

    def open(self, name: str) -> tuple[Blob, int]:
        """The blob and a descriptor to read it from, which the caller closes. A file of another size is BLOB_CORRUPT."""
        blob = self.get(name)
        try:
            descriptor = os.open(self.files.path(blob.sha256), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DataLoss(f"the file of blob {name} is gone", ErrorReason.BLOB_CORRUPT, blob_id=name) from None
        size = os.fstat(descriptor).st_size
        if size != blob.size_bytes:
            os.close(descriptor)
            message = f"the file of blob {name} has {size} bytes, {blob.size_bytes} were stored"
            raise DataLoss(message, ErrorReason.BLOB_CORRUPT, blob_id=name, size_bytes=size)
        return blob, descriptor

    def release(self, owner_id: str) -> int:
        """The owner needs its blobs no longer; those that nobody needs are removed. Answers the bytes of these."""
        with transaction(self._db, self.files.folder) as db:
            gone = [_decode(body) for (body,) in db.execute(_ONLY_OF, (owner_id, owner_id))]
            db.execute("DELETE FROM blob_owners WHERE owner_id = ?", (owner_id,))
            db.executemany("DELETE FROM blobs WHERE id = ?", [(blob.id,) for blob in gone])
        # After the rows: a crash in between leaves a file that the next start sweeps, never a row without its file.
        for blob in gone:
            self.files.path(blob.sha256).unlink(missing_ok=True)
        return sum(blob.size_bytes for blob in gone)

    def sweep(self, is_owner: Callable[[str], bool]) -> int:
        """At start: let go for owners that are no more, and remove files that a crash left without a row. How many."""
        owners = [owner for (owner,) in self._db.execute("SELECT DISTINCT owner_id FROM blob_owners")]
        for owner in owners:
            if not is_owner(owner):
                self.release(owner)
        rows = self._db.execute("SELECT body FROM blobs")
        return self.files.sweep(_decode(body).sha256 for (body,) in rows)

    def _row(self, name: str) -> Blob | None:
        row = self._db.execute("SELECT body FROM blobs WHERE id = ?", (name,)).fetchone()
        return _decode(row[0]) if row else None
