"""Sessions on disk: one row a session, and one row an event of it."""

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from domains.clock import ClockStep
from domains.processing.sessions.session import Session, SessionFilter, SessionTotals, SessionView
from domains.storage import room_for_work, transaction

LOOKED = 1000
"""Most rows that one page reads."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Session).decode
_decode_totals = msgspec.msgpack.Decoder(SessionTotals).decode
_decode_view = msgspec.msgpack.Decoder(SessionView).decode
_INSERT_EVENT = (
    "INSERT INTO session_events (session_id, sequence, job_id, job_sequence, state, body) VALUES (?, ?, ?, ?, ?, ?)"
)


class StoredSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session with what is stored beside it."""

    session: Session
    totals: SessionTotals
    ceiling: int
    """The highest sequence of an event that may have been visible."""


class StoredNews(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a session."""

    sequence: int
    job_id: str
    """Empty: the session itself changed."""
    job_sequence: int
    """Place of the event in the job's journal."""
    state: str
    """State of the job after the event."""
    view: SessionView | None
    """The session after its change. None: a job changed."""


class SessionStore:
    """Reads and writes sessions; knows no rules."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._connection, self._folder)

    def add(self, session: Session, ceiling: int, view: SessionView) -> Session:
        """Store a new session with its first event; returns it with its number. Raises STORAGE_FULL."""
        room_for_work(self._folder)
        with self._transaction() as db:
            number = db.execute(
                "INSERT INTO sessions (id, request_id, state, sequence_ceiling, body, totals) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    session.id,
                    session.request_id or None,
                    session.state,
                    ceiling,
                    _encode(session),
                    _encode(view.totals),
                ),
            ).lastrowid
            session = msgspec.structs.replace(session, number=number)
            self._insert_change(db, msgspec.structs.replace(view, session=session))
        return session

    def change(self, view: SessionView, expire_time_s: float | None) -> None:
        """Store a session after a change of itself, with the event of the change."""
        session = view.session
        with self._transaction() as db:
            db.execute(
                "UPDATE sessions SET state = ?, expire_time_s = ?, body = ? WHERE id = ?",
                (session.state, expire_time_s, _encode(session), session.id),
            )
            self._insert_change(db, view)

    @staticmethod
    def _insert_change(db: sqlite3.Connection, view: SessionView) -> None:
        session = view.session
        db.execute(_INSERT_EVENT, (session.id, view.last_sequence, None, 0, session.state, _encode(view)))

    @staticmethod
    def insert_news(db: sqlite3.Connection, session_id: str, news: StoredNews) -> None:
        """Store the place of a job's event, inside the caller's transaction."""
        row = (session_id, news.sequence, news.job_id, news.job_sequence, news.state, None)
        db.execute(_INSERT_EVENT, row)

    @staticmethod
    def insert_result(db: sqlite3.Connection, session_id: str, job_id: str, blob_id: str, size_bytes: int) -> None:
        """Store that a job made a file, inside the caller's transaction."""
        row = (session_id, job_id, blob_id, size_bytes)
        db.execute("INSERT OR IGNORE INTO session_results VALUES (?, ?, ?, ?)", row)

    @staticmethod
    def set_totals(db: sqlite3.Connection, session_id: str, totals: SessionTotals) -> None:
        """Store the sum of the ended jobs, inside the caller's transaction."""
        db.execute("UPDATE sessions SET totals = ? WHERE id = ?", (_encode(totals), session_id))

    def raise_ceiling(self, session_id: str, ceiling: int) -> None:
        """Reserve the sequences up to `ceiling`, so that a restart continues above them."""
        with self._transaction() as db:
            db.execute("UPDATE sessions SET sequence_ceiling = ? WHERE id = ?", (ceiling, session_id))

    def get(self, session_id: str) -> StoredSession | None:
        """The session. None: it does not exist."""
        row = self._connection.execute(f"{_SELECT} WHERE id = ?", (session_id,)).fetchone()
        return None if row is None else _stored(row)

    def by_request(self, request_id: str) -> str | None:
        """The id of the session that was opened with this request id, or None."""
        row = self._connection.execute("SELECT id FROM sessions WHERE request_id = ?", (request_id,)).fetchone()
        return None if row is None else row[0]

    def unended(self) -> list[StoredSession]:
        """The sessions that have not ended, oldest first."""
        rows = self._connection.execute(f"{_SELECT} WHERE state IN ('open', 'paused', 'closing') ORDER BY number")
        return [_stored(row) for row in rows]

    def page(self, wanted: SessionFilter, before: int | None, limit: int) -> tuple[Sequence[Session], int | None]:
        """Up to `limit` sessions that the filter accepts, newest first, and where the next page begins (None: the end).
        Reads at most `LOOKED` rows."""
        end, found, place = 1 << 62 if before is None else before, list[Session](), 0
        rows = self._connection.execute(f"{_SELECT} WHERE number < ? ORDER BY number DESC LIMIT {LOOKED + 1}", (end,))
        for looked, row in enumerate(rows):
            if looked == LOOKED or len(found) == limit:
                return found, place
            stored, place = _stored(row).session, row[0]
            if wanted.accepts(stored):
                found.append(stored)
        return found, None

    def news(self, session_id: str, after: int, limit: int) -> list[StoredNews]:
        """Up to `limit` stored events after a sequence, in order."""
        rows = self._connection.execute(
            "SELECT sequence, job_id, job_sequence, state, body FROM session_events WHERE session_id = ? AND sequence > ?"
            " ORDER BY sequence LIMIT ?",
            (session_id, after, limit),
        )
        return [
            StoredNews(
                sequence=sequence,
                job_id=job_id or "",
                job_sequence=job_sequence,
                state=state,
                view=None if body is None else _decode_view(body),
            )
            for sequence, job_id, job_sequence, state, body in rows
        ]

    def last_sequence(self, session_id: str) -> int:
        """The sequence of the newest stored event."""
        query = "SELECT max(sequence) FROM session_events WHERE session_id = ?"
        return self._connection.execute(query, (session_id,)).fetchone()[0] or 0

    def result_bytes(self, session_id: str) -> int:
        """The size of the files that the session's jobs made; a file that several of them made counts once."""
        query = "SELECT sum(size_bytes) FROM (SELECT DISTINCT blob_id, size_bytes FROM session_results WHERE session_id = ?)"
        return self._connection.execute(query, (session_id,)).fetchone()[0] or 0

    def expire(self, now_s: float) -> list[str]:
        """Delete the ended sessions whose retention is over and whose jobs are gone; returns their ids."""
        over = "expire_time_s < ? AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.session_id = sessions.id)"
        gone = [row[0] for row in self._connection.execute(f"SELECT id FROM sessions WHERE {over}", (now_s,))]
        if gone:
            with self._transaction() as db:
                db.executemany("DELETE FROM sessions WHERE id = ?", [(session_id,) for session_id in gone])
        return gone

    def move_expiry(self, step: ClockStep) -> None:
        """Move expiry times with the wall clock."""
        with self._transaction() as db:
            db.execute(
                "UPDATE sessions SET expire_time_s = expire_time_s + ? WHERE expire_time_s >= ? AND expire_time_s < ?",
                (step.delta_s, step.from_s, step.before_s),
            )


_SELECT = "SELECT number, body, totals, sequence_ceiling FROM sessions"


def _stored(row: tuple[int, bytes, bytes, int]) -> StoredSession:
    number, body, totals, ceiling = row
    session = msgspec.structs.replace(_decode(body), number=number)
    return StoredSession(session=session, totals=_decode_totals(totals), ceiling=ceiling)
