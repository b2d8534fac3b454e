"""Jobs and their journals on disk: one row a job and one row a durable event."""

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from domains.journal import Entry
from domains.processing.job import Job
from domains.processing.job_event import JobEvent
from domains.storage import room_for_work, transaction

_encode = msgspec.msgpack.Encoder().encode
_decode_job = msgspec.msgpack.Decoder(Job).decode
_decode_event = msgspec.msgpack.Decoder(JobEvent).decode


class JobStore:
    """Reads and writes; knows no rules."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._connection, self._folder)

    def add(self, job: Job, entry: Entry[JobEvent], ceiling: int) -> None:
        """Store a new job with its first event. Raises STORAGE_FULL."""
        room_for_work(self._folder)
        with self._transaction() as db:
            db.execute(
                "INSERT INTO jobs (id, request_id, session_id, kind, state, sequence_ceiling, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    job.id,
                    job.request_id or None,
                    job.options.session_id,
                    job.kind,
                    job.state,
                    ceiling,
                    _encode(job),
                ),
            )
            self._insert_event(db, job.id, entry)

    def record(self, job: Job, entry: Entry[JobEvent], expire_time_s: float | None) -> None:
        """Store a durable event and the job as it is after it; an ended one with the time it is kept to."""
        with self._transaction() as db:
            db.execute(
                "UPDATE jobs SET state = ?, body = ?, expire_time_s = ? WHERE id = ?",
                (job.state, _encode(job), expire_time_s, job.id),
            )
            self._insert_event(db, job.id, entry)

    def raise_ceiling(self, job_id: str, ceiling: int) -> None:
        """Promise that sequences up to `ceiling` may have been seen, so that a restart goes on above them."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET sequence_ceiling = ? WHERE id = ?", (ceiling, job_id))

    def delete(self, job_id: str) -> None:
        """Forget a job and its journal."""
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def get(self, job_id: str) -> Job | None:
        """The job, or None."""
        return self._one("SELECT body FROM jobs WHERE id = ?", job_id)

    def by_request(self, request_id: str) -> Job | None:
        """The job that was submitted with this request id, or None."""
        return self._one("SELECT body FROM jobs WHERE request_id = ?", request_id)

    def ceiling(self, job_id: str) -> int:
        """The highest sequence that may have been seen."""
        row = self._connection.execute("SELECT sequence_ceiling FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return row[0] if row else 0

    def unfinished(self) -> list[Job]:
        """Jobs that had not ended, oldest first."""
        rows = self._connection.execute(
            "SELECT body FROM jobs WHERE state IN"
            " ('queued', 'running', 'pausing', 'paused', 'cancelling', 'interrupted') ORDER BY number"
        )
        return [_decode_job(body) for (body,) in rows]

    def expired(self, now_s: float, limit: int) -> list[str]:
        """Ids of jobs whose time has come."""
        rows = self._connection.execute("SELECT id FROM jobs WHERE expire_time_s < ? LIMIT ?", (now_s, limit))
        return [job_id for (job_id,) in rows]

    def events(self, job_id: str) -> list[Entry[JobEvent]]:
        """The durable journal."""
        rows = self._connection.execute(
            "SELECT sequence, time_s, body FROM events WHERE job_id = ? ORDER BY sequence", (job_id,)
        )
        return [Entry(sequence, time_s, _decode_event(body)) for sequence, time_s, body in rows]

    def page(self, before_number: int | None, limit: int) -> list[tuple[int, Job]]:
        """Up to `limit` jobs, newest first, older than a given row number."""
        rows = self._connection.execute(
            "SELECT number, body FROM jobs WHERE number < ? ORDER BY number DESC LIMIT ?",
            (before_number if before_number is not None else 1 << 62, limit),
        )
        return [(number, _decode_job(body)) for number, body in rows]

    def _one(self, query: str, key: str) -> Job | None:
        row = self._connection.execute(query, (key,)).fetchone()
        return _decode_job(row[0]) if row else None

    @staticmethod
    def _insert_event(db: sqlite3.Connection, job_id: str, entry: Entry[JobEvent]) -> None:
        db.execute(
            "INSERT INTO events (job_id, sequence, time_s, body) VALUES (?, ?, ?, ?)",
            (job_id, entry.sequence, entry.time_s, _encode(entry.value)),
        )
