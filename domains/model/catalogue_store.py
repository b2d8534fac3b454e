"""Stores the catalogue in the state folder's database, so that ids and hashes survive a restart."""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from domains.model.fingerprint import FileHash
from domains.model.model import Model
from domains.storage import storage_errors

_encode = msgspec.msgpack.Encoder().encode
_HASH_COLUMNS = ", ".join(FileHash.__struct_fields__)
_decode = msgspec.msgpack.Decoder(Model).decode


class CatalogueStore:
    """Owns two tables of a shared connection. One thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._folder = Path(connection.execute("PRAGMA database_list").fetchone()[2]).parent
        self._written: object = None
        """The rows as last written: most scans change nothing, and then write nothing."""

    def models(self) -> Iterator[Model]:
        """The models of the last scan."""
        for (body,) in self._db.execute("SELECT body FROM models").fetchall():
            try:
                yield _decode(body)
            except msgspec.DecodeError:
                # A version with other fields wrote it: the next scan finds the model again.
                continue

    def hashes(self) -> Iterator[FileHash]:
        """The computed hashes of files."""
        for row in self._db.execute(f"SELECT {_HASH_COLUMNS} FROM file_hashes").fetchall():
            yield FileHash(**dict(zip(FileHash.__struct_fields__, row, strict=True)))

    def replace(self, models: Iterable[Model], hashes: Iterable[FileHash]) -> None:
        """Replace all models and hashes, or nothing. Raises STORAGE_FULL."""
        rows = [(model.id, _encode(model)) for model in models]
        hashed = [msgspec.structs.astuple(one) for one in hashes]
        if self._written == (rows, hashed):
            return
        with storage_errors(self._folder), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM models")
            self._db.execute("DELETE FROM file_hashes")
            self._db.executemany("INSERT INTO models VALUES (?, ?)", rows)
            marks = ", ".join("?" * len(FileHash.__struct_fields__))
            self._db.executemany(f"INSERT INTO file_hashes ({_HASH_COLUMNS}) VALUES ({marks})", hashed)
        self._written = rows, hashed
