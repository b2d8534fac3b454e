"""All versions of the state folder's database: each migration changes the version before.

`PRAGMA user_version` holds the version of a folder. A folder of version 0 is empty, or was written before folders had
versions: its tables are those of version 1. A migration that is released is never changed; a new one is added below it.
Migrations read rows as plain msgpack values, because the structs that wrote them have changed since.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

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


_SPLIT_JOBS = """
ALTER TABLE jobs ADD COLUMN parent_id TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN device_id TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN create_time_s REAL NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE jobs ADD COLUMN summary TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN record BLOB NOT NULL DEFAULT x'';
ALTER TABLE jobs ADD COLUMN work BLOB NOT NULL DEFAULT x'';
ALTER TABLE jobs ADD COLUMN result BLOB
"""
"""`version` is the version of the folder when the row was written."""
_INDEX_JOBS = """
DROP INDEX jobs_by_session;
CREATE INDEX jobs_by_session ON jobs (session_id);
CREATE INDEX jobs_by_parent ON jobs (parent_id);
CREATE INDEX jobs_by_device ON jobs (device_id);
CREATE INDEX jobs_by_kind ON jobs (kind);
CREATE TABLE job_labels (
  key TEXT NOT NULL, value TEXT NOT NULL, number INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
  PRIMARY KEY (key, value, number)
) WITHOUT ROWID;
CREATE INDEX job_labels_by_job ON job_labels (number, key)
"""
_JOBS_AT_ONCE = 1000
_SUMMARY_CHARACTERS = 120


def run_script(database: sqlite3.Connection, script: str) -> None:
    """Execute statements without triggers; `executescript` would commit the caller's transaction first."""
    for statement in script.split(";"):
        database.execute(statement)


def _first(database: sqlite3.Connection, folder: Path) -> None:
    run_script(database, _FIRST)


def _split_jobs(database: sqlite3.Connection, folder: Path) -> None:
    """Give a job's row columns for lists and filters, apart from its work and its result."""
    run_script(database, _SPLIT_JOBS)
    number = 0
    while rows := database.execute(
        "SELECT number, body FROM jobs WHERE number > ? ORDER BY number LIMIT ?", (number, _JOBS_AT_ONCE)
    ).fetchall():
        columns = [(*_columns(body), number) for number, body in rows]
        database.executemany(
            "UPDATE jobs SET device_id = ?, create_time_s = ?, summary = ?, record = ?, work = ?, result = ?"
            " WHERE number = ?",
            columns,
        )
        number = rows[-1][0]
    database.execute("ALTER TABLE jobs DROP COLUMN body")


def _columns(body: bytes) -> tuple[object, ...]:
    """The new columns of a job's row. An undecodable body leaves them empty: the job's reader reports the fault."""
    try:
        job = msgspec.msgpack.decode(body, type=dict[str, Any])
        work, result = job.pop("work"), job.pop("result", None)
        return (
            job["device_id"],
            job["create_time_s"],
            _summary(work),
            msgspec.msgpack.encode(job),
            msgspec.msgpack.encode(work),
            None if result is None else msgspec.msgpack.encode(result),
        )
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return "", 0.0, "", b"", b"", None


def _summary(work: dict[str, Any]) -> str:
    prompt = work.get("asked", {}).get("prompt")
    name = work.get("model_id") or work.get("device_id") or ""
    words = f"{work['type']} {name}".replace("_", " ") if prompt is None else prompt
    return " ".join(words.split())[:_SUMMARY_CHARACTERS]


def _index_jobs(database: sqlite3.Connection, folder: Path) -> None:
    """Index the jobs, so that lists read a page of any filter through an index, which ends with the job's number."""
    run_script(database, _INDEX_JOBS)
    number = 0
    while rows := database.execute(
        "SELECT number, record FROM jobs WHERE number > ? ORDER BY number LIMIT ?", (number, _JOBS_AT_ONCE)
    ).fetchall():
        labels = [(number, *label) for number, record in rows for label in _labels(record)]
        database.executemany("INSERT OR IGNORE INTO job_labels (number, key, value) VALUES (?, ?, ?)", labels)
        number = rows[-1][0]


def _labels(record: bytes) -> list[tuple[str, str]]:
    try:
        options = msgspec.msgpack.decode(record, type=dict[str, Any])["options"]
        return msgspec.convert(options["labels"], list[tuple[str, str]])
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, TypeError):
        return []


def _power_limits(database: sqlite3.Connection, folder: Path) -> None:
    """Import the power limits from before the server's changes, which had a file of their own.

    The file stays, because the transaction can still fail; no later version reads it.
    """
    database.execute(
        "CREATE TABLE power_limits (device_id TEXT PRIMARY KEY, milliwatts INTEGER NOT NULL) WITHOUT ROWID"
    )
    try:
        limits = msgspec.json.decode((folder / "power-limits.json").read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError):
        # There is no file, or its content is not readable any more.
        return
    database.executemany("INSERT INTO power_limits VALUES (?, ?)", limits.items())


_SYSTEM_EVENTS = """
CREATE TABLE system_events (
  sequence INTEGER PRIMARY KEY,
  time_s REAL NOT NULL,
  resource_id TEXT NOT NULL,
  body BLOB NOT NULL,
  snapshot_kind TEXT NOT NULL,
  snapshot BLOB
);
CREATE INDEX system_events_of_jobs ON system_events (resource_id) WHERE snapshot_kind = 'job';
ALTER TABLE event_ceiling ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
UPDATE event_ceiling SET forgotten = ceiling
"""
_FORGET_DELETED_JOBS = """
CREATE TRIGGER system_events_forget_job AFTER DELETE ON jobs BEGIN
  UPDATE system_events SET snapshot_kind = '', snapshot = NULL WHERE resource_id = OLD.id AND snapshot_kind = 'job';
END
"""


def _system_events(database: sqlite3.Connection, folder: Path) -> None:
    """Create the log of changes, which was in memory only; earlier events are lost.

    A deleted job leaves its events, without the words of its prompt and its labels.
    """
    run_script(database, _SYSTEM_EVENTS)
    database.execute(_FORGET_DELETED_JOBS)


def _clock(database: sqlite3.Connection, folder: Path) -> None:
    """Create the one row that holds the newest reading of the clocks, and let the age of an event move with a step."""
    database.execute(
        "CREATE TABLE clock (wall_s REAL NOT NULL, steady_s REAL NOT NULL, boot_id TEXT NOT NULL, held INTEGER NOT NULL,"
        " floor_s REAL)"
    )
    database.execute("ALTER TABLE system_events ADD COLUMN age_from_s REAL NOT NULL DEFAULT 0")
    database.execute("UPDATE system_events SET age_from_s = time_s")


_MODEL_NOTES = """
ALTER TABLE file_hashes ADD COLUMN data_sha256 TEXT NOT NULL DEFAULT '';
ALTER TABLE file_hashes ADD COLUMN tensor_sha256 TEXT NOT NULL DEFAULT '';
ALTER TABLE file_hashes ADD COLUMN short_hash TEXT NOT NULL DEFAULT '';
CREATE TABLE model_notes (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID
"""


def _model_notes(database: sqlite3.Connection, folder: Path) -> None:
    """Add the hashes that ignore metadata, empty until a file is read again, and what callers note about models."""
    run_script(database, _MODEL_NOTES)


_SESSIONS = """
CREATE TABLE sessions (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  request_id TEXT UNIQUE,
  state TEXT NOT NULL,
  sequence_ceiling INTEGER NOT NULL DEFAULT 0,
  expire_time_s REAL,
  body BLOB NOT NULL,
  totals BLOB NOT NULL
);
CREATE INDEX sessions_by_expiry ON sessions (expire_time_s) WHERE expire_time_s IS NOT NULL;
CREATE INDEX sessions_by_state ON sessions (state);
CREATE TABLE session_events (
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  sequence INTEGER NOT NULL,
  job_id TEXT REFERENCES jobs (id) ON DELETE CASCADE,
  job_sequence INTEGER NOT NULL,
  state TEXT NOT NULL,
  body BLOB,
  PRIMARY KEY (session_id, sequence)
) WITHOUT ROWID;
CREATE INDEX session_events_by_job ON session_events (job_id);
CREATE TABLE session_results (
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  blob_id TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  PRIMARY KEY (session_id, blob_id, job_id)
) WITHOUT ROWID;
CREATE INDEX session_results_by_job ON session_results (job_id);
CREATE INDEX system_events_of_sessions ON system_events (resource_id) WHERE snapshot_kind = 'session'
"""
"""A row of `session_events` names an event of a job's journal, or holds the session after a change of itself."""
_FORGET_DELETED_SESSIONS = """
CREATE TRIGGER system_events_forget_session AFTER DELETE ON sessions BEGIN
  UPDATE system_events SET snapshot_kind = '', snapshot = NULL
    WHERE resource_id = OLD.id AND snapshot_kind = 'session';
END
"""


def _sessions(database: sqlite3.Connection, folder: Path) -> None:
    """Add sessions, the order of all events of their jobs, and the files that their jobs made."""
    run_script(database, _SESSIONS)
    database.execute(_FORGET_DELETED_SESSIONS)


MIGRATIONS: tuple[Migration, ...] = (
    _first,
    _split_jobs,
    _index_jobs,
    _power_limits,
    _system_events,
    _clock,
    _model_notes,
    _sessions,
)
"""The one at index `n` makes version `n + 1`."""
