"""Every version of the state folder's database: what each one changes of the one before.

`PRAGMA user_version` holds the version of a folder. A folder of version 0 is empty, or was written before folders had
versions: its tables are those of version 1. A migration that is released is never changed; a new one is added below it.
Migrations read rows as plain msgpack values, because the structs that wrote them have changed since.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

Migration = Callable[[sqlite3.Connection, Path], None]
"""Changes the tables of a state folder, inside a transaction that the caller holds."""

_FIRST = """
CREATE TABLE IF NOT EXISTS jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  request_id TEXT UNIQUE,
  session_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  sequence_ceiling INTEGER NOT NULL,
  expire_time_s REAL,
  body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_expiry ON jobs (expire_time_s) WHERE expire_time_s IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state);
CREATE INDEX IF NOT EXISTS jobs_by_session ON jobs (session_id) WHERE session_id <> '';
CREATE TABLE IF NOT EXISTS events (
  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  sequence INTEGER NOT NULL,
  time_s REAL NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (job_id, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob_owners (
  blob_id TEXT NOT NULL REFERENCES blobs (id), owner_id TEXT NOT NULL, PRIMARY KEY (owner_id, blob_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blob_owners_by_blob ON blob_owners (blob_id);
CREATE TABLE IF NOT EXISTS blob_holders (
  blob_id TEXT NOT NULL REFERENCES blobs (id), owner_id TEXT NOT NULL, PRIMARY KEY (owner_id, blob_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blob_holders_by_blob ON blob_holders (blob_id);
CREATE TABLE IF NOT EXISTS blob_requests (
  request_id TEXT PRIMARY KEY, digest TEXT NOT NULL, blob_id TEXT NOT NULL REFERENCES blobs (id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blob_requests_by_blob ON blob_requests (blob_id);
CREATE TABLE IF NOT EXISTS models (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS file_hashes (path TEXT PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event_ceiling (one INTEGER PRIMARY KEY CHECK (one = 1), ceiling INTEGER NOT NULL);
INSERT OR IGNORE INTO event_ceiling (one, ceiling) VALUES (1, 0)
"""


def run_script(database: sqlite3.Connection, script: str) -> None:
    """Execute statements without triggers; `executescript` would commit the caller's transaction first."""
    for statement in script.split(";"):
        database.execute(statement)


def _first(database: sqlite3.Connection, folder: Path) -> None:
    run_script(database, _FIRST)


MIGRATIONS: tuple[Migration, ...] = (_first,)
"""The one at index `n` makes version `n + 1`."""
