"""Jobs and their journals on disk: one row a job and one row a durable event."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from domains.clock import ClockStep
from domains.journal import Entry
from domains.processing.jobs.erasure import Erasure
from domains.processing.jobs.event import JobEvent
from domains.processing.jobs.filter import LOOKED, JobFilter, as_list, conditions, window
from domains.processing.jobs.job import Job, ListedJob
from domains.processing.jobs.rows import (
    CHANGING,
    FIXED,
    StoredJob,
    UnreadableRow,
    changing_of,
    encoded_event,
    entry_of,
    fixed_of,
    job_of,
    listed_of,
    unreadable,
)
from domains.storage import room_for_work, transaction

_INSERT = (
    f"INSERT INTO jobs ({', '.join((*FIXED, *CHANGING))}, sequence_ceiling)"
    f" VALUES ({', '.join('?' * len((*FIXED, *CHANGING)))}, ?)"
)
_UPDATE = f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in CHANGING)}, expire_time_s = ? WHERE id = ?"
_REPLACE = f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in FIXED)} WHERE id = ?"
_LISTED = (
    "number, id, request_id, session_id, parent_id, kind, device_id, create_time_s, version, summary, record,"
    " sequence_ceiling"
)
_LABEL = "INSERT INTO job_labels (number, key, value) VALUES (?, ?, ?)"


Also = Callable[[sqlite3.Connection], None]
"""What else a transaction writes."""


def _nothing(db: sqlite3.Connection) -> None:
    """Write nothing else."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a list."""

    rows: list[ListedJob | UnreadableRow]
    place: int | None
    """The next page has the numbers below it. None: this is the last page."""


class JobStore:
    """Reads and writes jobs; knows no rules."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        self.erasure = Erasure(connection, folder)

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._connection, self._folder)

    def check_room(self) -> None:
        """Raise STORAGE_FULL if the disk has no room for new work."""
        room_for_work(self._folder)

    def add(self, job: Job, entry: Entry[JobEvent], ceiling: int, also: Also = _nothing) -> Job:
        """Store a new job with its first event, and `also`; returns it with its number. Raises STORAGE_FULL."""
        room_for_work(self._folder)
        with self._transaction() as db:
            number = db.execute(_INSERT, (*fixed_of(job), *changing_of(job), ceiling)).lastrowid
            db.executemany(_LABEL, [(number, *label) for label in job.options.labels])
            self._insert_event(db, job.id, entry)
            also(db)
        return msgspec.structs.replace(job, number=number)

    def record(self, job: Job, entry: Entry[JobEvent], expire_time_s: float | None, also: Also = _nothing) -> None:
        """Store a durable event, the job after it, and `also`; an ended job gets its expiry time."""
        with self._transaction() as db:
            db.execute(_UPDATE, (*changing_of(job), expire_time_s, job.id))
            self._insert_event(db, job.id, entry)
            also(db)

    def change_options(self, job: Job, expire_time_s: float | None) -> None:
        """Store a job with other options."""
        with self._transaction() as db:
            db.execute(_UPDATE, (*changing_of(job), expire_time_s, job.id))
            db.execute("DELETE FROM job_labels WHERE number = ?", (job.number,))
            db.executemany(_LABEL, [(job.number, *label) for label in job.options.labels])

    def replace(self, job: Job, events: Sequence[Entry[JobEvent]], expire_time_s: float | None) -> None:
        """Replace a job that cannot be read, and its journal."""
        with self._transaction() as db:
            db.execute(_REPLACE, (*fixed_of(job), job.id))
            db.execute(_UPDATE, (*changing_of(job), expire_time_s, job.id))
            db.execute("DELETE FROM events WHERE job_id = ?", (job.id,))
            for entry in events:
                self._insert_event(db, job.id, entry)

    def raise_ceiling(self, job_id: str, ceiling: int) -> None:
        """Reserve the sequences up to `ceiling`, so that a restart continues above them."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET sequence_ceiling = ? WHERE id = ?", (ceiling, job_id))

    def delete(self, job_id: str) -> None:
        """Delete a job and its journal."""
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def last_number(self) -> int:
        """The highest number that a job ever had, deleted jobs included."""
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
        return 0 if row is None else row[0]

    def ids(self) -> set[str]:
        """Ids of all jobs, readable or not."""
        return {job_id for (job_id,) in self._connection.execute("SELECT id FROM jobs")}

    def get(self, job_id: str) -> Job | UnreadableRow | None:
        """The job without its journal. None: it does not exist."""
        row = self._one("SELECT * FROM jobs WHERE id = ?", job_id)
        if row is None:
            return None
        try:
            return job_of(row)
        except msgspec.DecodeError as problem:
            return unreadable(row, problem)

    def load(self, job_id: str) -> StoredJob | UnreadableRow | None:
        """The job with its journal; unreadable if either part is. None: it does not exist."""
        row = self._one("SELECT * FROM jobs WHERE id = ?", job_id)
        if row is None:
            return None
        try:
            return StoredJob(job=job_of(row), events=self._events(job_id), ceiling=row["sequence_ceiling"])
        except msgspec.DecodeError as problem:
            return unreadable(row, problem)

    def by_request(self, request_id: str) -> str | None:
        """The id of the job that was submitted with this request id, or None."""
        row = self._one("SELECT id FROM jobs WHERE request_id = ?", request_id)
        return None if row is None else row["id"]

    def unfinished(self) -> list[str]:
        """Ids of jobs that have not ended, oldest first."""
        rows = self._connection.execute(
            "SELECT id FROM jobs WHERE state IN"
            " ('queued', 'running', 'pausing', 'paused', 'cancelling', 'interrupted') ORDER BY number"
        )
        return [job_id for (job_id,) in rows]

    def expired(self, now_s: float, limit: int) -> list[str]:
        """Ids of jobs whose retention is over."""
        rows = self._connection.execute("SELECT id FROM jobs WHERE expire_time_s < ? LIMIT ?", (now_s, limit))
        return [job_id for (job_id,) in rows]

    def move_expiry(self, step: ClockStep) -> None:
        """Move expiry times with the wall clock."""
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET expire_time_s = expire_time_s + ? WHERE expire_time_s >= ? AND expire_time_s < ?",
                (step.delta_s, step.from_s, step.before_s),
            )

    def readable_events(self, job_id: str) -> list[Entry[JobEvent]]:
        """The part of a durable journal that this server can read."""
        found: list[Entry[JobEvent]] = []
        for row in self._event_rows(job_id):
            try:
                found.append(entry_of(*row))
            except msgspec.DecodeError:
                continue
        return found

    def page(self, wanted: JobFilter, before: int | None, limit: int, also: Sequence[str]) -> Page:
        """Up to `limit` jobs below the number `before`, newest first, and those of `also`: jobs whose end is in memory
        only. Reads at most `LOOKED` rows."""
        end = before if before is not None else 1 << 62
        found = [number for (number,) in self._connection.execute(*window(wanted, end))]
        place = found[-1] if len(found) == LOOKED else None
        ids = as_list(also)
        if also:
            query = "SELECT number FROM jobs WHERE id IN (SELECT value FROM json_each(?)) AND number < ? AND number > ?"
            found += [number for (number,) in self._connection.execute(query, (ids, end, place or 0))]
        condition, values = conditions(wanted)
        rows = self._rows(
            f"SELECT {_LISTED} FROM jobs WHERE number IN (SELECT value FROM json_each(?))"
            f" AND ({condition} OR id IN (SELECT value FROM json_each(?))) ORDER BY number DESC LIMIT ?",
            (as_list(found), *values, ids, limit),
        ).fetchall()
        if len(rows) == limit and rows[-1]["number"] != min(found):
            place = rows[-1]["number"]
        return Page(rows=[self._listed(row) for row in rows], place=place)

    @staticmethod
    def _listed(row: sqlite3.Row) -> ListedJob | UnreadableRow:
        try:
            return listed_of(row)
        except msgspec.DecodeError as problem:
            return unreadable(row, problem)

    def _events(self, job_id: str) -> list[Entry[JobEvent]]:
        return [entry_of(*row) for row in self._event_rows(job_id)]

    def _event_rows(self, job_id: str) -> sqlite3.Cursor:
        query = "SELECT sequence, time_s, body FROM events WHERE job_id = ? ORDER BY sequence"
        return self._connection.execute(query, (job_id,))

    def _rows(self, query: str, values: Sequence[object]) -> sqlite3.Cursor:
        cursor = self._connection.cursor()
        cursor.row_factory = sqlite3.Row
        return cursor.execute(query, tuple(values))

    def _one(self, query: str, key: str) -> sqlite3.Row | None:
        return self._rows(query, (key,)).fetchone()

    @staticmethod
    def _insert_event(db: sqlite3.Connection, job_id: str, entry: Entry[JobEvent]) -> None:
        db.execute(
            "INSERT INTO events (job_id, sequence, time_s, body) VALUES (?, ?, ?, ?)",
            (job_id, entry.sequence, entry.time_s, encoded_event(entry.value)),
        )
