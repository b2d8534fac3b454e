"""The log of changes on disk: one row an event, bounded by `EventBounds`."""

import sqlite3
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from domains.journal import Entry
from domains.storage import storage_errors, transaction
from domains.system_event import EventBounds, StoredSnapshot, SystemEvent

_log = structlog.get_logger()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SystemEvent).decode
_COLUMNS = "sequence, time_s, resource_id, body, snapshot_kind, snapshot, age_from_s"
TRIM_AT_ONCE = 100
"""Events above the bound before the oldest are deleted, so that not every event costs a deletion."""


class EventRow(msgspec.Struct, frozen=True):
    """A stored event."""

    sequence: int
    time_s: float
    resource_id: str
    body: bytes
    snapshot_kind: str = ""
    """Empty: there is no snapshot."""
    snapshot: bytes | None = None
    age_from_s: float = 0.0
    """Unix time from which its age counts: `time_s`, moved by the steps of the clock since."""

    @property
    def size_bytes(self) -> int:
        """Size that counts against the bound."""
        return len(self.body) + len(self.snapshot or b"")


class StoredLog(msgspec.Struct, frozen=True, kw_only=True):
    """The log that the last server left."""

    entries: list[Entry[SystemEvent]]
    ceiling: int
    """The highest sequence that may have been visible."""
    forgotten: int
    """The highest sequence whose event was deleted; 0: none was."""


def row_of(entry: Entry[SystemEvent], snapshot: StoredSnapshot | None) -> EventRow:
    """The event with its snapshot as a row."""
    event = entry.value
    body = _encode(msgspec.structs.replace(event, snapshot=None))
    kind, data = ("", None) if snapshot is None else (snapshot.kind, snapshot.body)
    return EventRow(entry.sequence, entry.time_s, event.resource_id, body, kind, data, entry.time_s)


class EventStore:
    """Loads the log once, then adds and deletes events."""

    def __init__(self, connection: sqlite3.Connection, folder: Path, bounds: EventBounds) -> None:
        self._db = connection
        self._folder = folder
        self._bounds = bounds
        self._rows: deque[tuple[int, float, int]] = deque()
        """Sequence, `age_from_s` and size of each row, oldest first."""
        self._size_bytes = 0

    def load(self) -> StoredLog:
        """All events that this server can read. A row that it cannot read is skipped with a warning."""
        entries: list[Entry[SystemEvent]] = []
        with storage_errors(self._folder):
            query = f"SELECT {_COLUMNS} FROM system_events ORDER BY sequence"
            for columns in self._db.execute(query):
                row = EventRow(*columns)
                self._count(row)
                if entry := _entry_of(row):
                    entries.append(entry)
            ceiling, forgotten = self._db.execute("SELECT ceiling, forgotten FROM event_ceiling").fetchone()
        return StoredLog(entries=entries, ceiling=ceiling, forgotten=forgotten)

    def set_ceiling(self, ceiling: int) -> None:
        """Reserve the sequences up to `ceiling`, so that a restart continues above them."""
        with transaction(self._db, self._folder) as db:
            db.execute("UPDATE event_ceiling SET ceiling = ?", (ceiling,))

    def add(self, rows: Sequence[EventRow]) -> None:
        """Store events, all or none. Raises STORAGE_FULL."""
        with transaction(self._db, self._folder) as db:
            db.executemany(
                f"INSERT INTO system_events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [msgspec.structs.astuple(row) for row in rows],
            )
        for row in rows:
            self._count(row)

    def trim(self, now_s: float, slack: int) -> int:
        """Delete the oldest events beyond the bounds if there are more than `slack`; the highest deleted sequence, or 0."""
        beyond = self._beyond(now_s)
        if beyond <= slack:
            return 0
        last = self._rows[beyond - 1][0]
        with transaction(self._db, self._folder) as db:
            db.execute("DELETE FROM system_events WHERE sequence <= ?", (last,))
            db.execute("UPDATE event_ceiling SET forgotten = ?", (last,))
        for _ in range(beyond):
            self._size_bytes -= self._rows.popleft()[2]
        return last

    def move_expiry(self, delta_s: float, from_s: float, before_s: float) -> None:
        """Add `delta_s` to the ages of the events whose expiry is at `from_s` or later and before `before_s`."""
        from_s, before_s = from_s - self._bounds.age_s, before_s - self._bounds.age_s
        with transaction(self._db, self._folder) as db:
            db.execute(
                "UPDATE system_events SET age_from_s = age_from_s + ? WHERE age_from_s >= ? AND age_from_s < ?",
                (delta_s, from_s, before_s),
            )
        moved = [(number, at + delta_s if from_s <= at < before_s else at, size) for number, at, size in self._rows]
        self._rows = deque(moved)

    def _beyond(self, now_s: float) -> int:
        """Number of the oldest events that are beyond the bounds."""
        count, size = len(self._rows), self._size_bytes
        beyond = 0
        for _, age_from_s, size_bytes in self._rows:
            within = count - beyond <= self._bounds.count and size <= self._bounds.size_bytes
            if within and age_from_s >= now_s - self._bounds.age_s:
                break
            beyond += 1
            size -= size_bytes
        return beyond

    def _count(self, row: EventRow) -> None:
        self._rows.append((row.sequence, row.age_from_s, row.size_bytes))
        self._size_bytes += row.size_bytes


def _entry_of(row: EventRow) -> Entry[SystemEvent] | None:
    try:
        event = _decode(row.body)
    except msgspec.DecodeError as problem:
        # `ValidationError`, for a row of another version, is one of them.
        _log.warning("event skipped: this server cannot read it", sequence=row.sequence, problem=str(problem))
        return None
    if row.snapshot is not None:
        event = msgspec.structs.replace(event, snapshot=StoredSnapshot(row.snapshot_kind, row.snapshot))
    return Entry(row.sequence, row.time_s, event)
