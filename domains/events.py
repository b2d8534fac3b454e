"""The log of changes: every change of state in every domain, causes before effects.

Kept in memory and on disk, bounded by `EventBounds`. Events of one turn of the event loop are stored in one
transaction, before the readers of the log wake. Sequences rise over restarts; the disk reserves a block of them at a
time, so that a new event never has the sequence of one that a reader saw and the disk did not keep.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path

import structlog

from domains.errors import DeviceOpsError
from domains.event_store import TRIM_AT_ONCE, EventRow, EventStore, row_of
from domains.failure import Failure
from domains.journal import Entry, Journal
from domains.reasons import Domain, Severity
from domains.system_event import EventBounds, StoredSnapshot, SystemEvent

BOUNDS = EventBounds()
KEPT = BOUNDS.count
"""Number of events that a reader can go back."""
_PROMISED = 10_000
_WAITING = 1000
"""Most events that wait for room on the disk; beyond that, the oldest are not stored."""

EventDomain = Domain
"""The domain that owns the changed thing."""

_log = structlog.get_logger()


class EventLog:
    """Writes and keeps the events. One event loop; no thread may touch it."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        folder: Path,
        *,
        instance_id: str = "",
        bounds: EventBounds = BOUNDS,
        to_store: Callable[[object], StoredSnapshot | None] = lambda snapshot: None,
        expiry_now: Callable[[], float] = time.time,
    ) -> None:
        """`to_store`: the stored form of a snapshot; None: it is not stored. `expiry_now`: see `ExpiryClock`."""
        self._store = EventStore(connection, folder, bounds)
        self._instance_id = instance_id
        self._to_store = to_store
        self._expiry_now = expiry_now
        past = self._store.load()
        self._ceiling = past.ceiling
        self.journal: Journal[SystemEvent] = Journal(
            past.entries, last_sequence=past.ceiling, forgotten=past.forgotten, limit=bounds.count
        )
        """Every sequence up to the reserved one may have been visible."""
        self._unstored: list[Entry[SystemEvent]] = []
        self._waiting: deque[EventRow] = deque(maxlen=_WAITING)
        with contextlib.suppress(DeviceOpsError):
            self._trim(0)

    def tell(
        self,
        domain: EventDomain,
        kind: str,
        resource_id: str = "",
        message: str = "",
        *,
        severity: Severity = Severity.INFO,
        cause: int = 0,
        failure: Failure | None = None,
        snapshot: object = None,
    ) -> int:
        """Record a change; returns the event's sequence, which later events name as their cause."""
        event = SystemEvent(
            domain=domain,
            kind=kind,
            resource_id=resource_id,
            message=message,
            severity=severity,
            cause_sequence=cause,
            failure=failure,
            instance_id=self._instance_id,
            snapshot=snapshot,
        )
        entry = self.journal.next(event)
        self._promise(entry.sequence)
        # Schedule the store before `publish` wakes the readers, so that they see stored events only.
        self._store_soon(entry)
        self.journal.publish(entry)
        return entry.sequence

    def missed(self, position: int) -> bool:
        """Whether events after a reader's position are gone.

        After a crash the disk can lack the last events. If the event at the position is missing, later ones may be
        missing too.
        """
        log = self.journal
        if position <= log.forgotten:
            return position < log.forgotten
        return position < log.last_sequence and position not in log

    def flush(self, slack: int = TRIM_AT_ONCE) -> None:
        """Store waiting events, and delete the oldest ones if more than `slack` are beyond the bounds."""
        told, self._unstored = self._unstored, []
        self._waiting.extend(row_of(entry, self._to_store(entry.value.snapshot)) for entry in told)
        try:
            if self._waiting:
                self._store.add(self._waiting)
                self._waiting.clear()
            self._trim(slack)
        except (DeviceOpsError, sqlite3.Error) as problem:
            # Readers see the events anyway; the next flush stores them.
            _log.warning("events not stored", waiting=len(self._waiting), problem=str(problem))

    async def keep_bounded(self, every_s: float) -> None:
        """Delete events beyond the bounds periodically, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.flush(slack=0)

    def move_expiry(self, delta_s: float, from_s: float, before_s: float) -> None:
        """Move the expiry of stored events with the wall clock; see `ClockStep`. Their dates stay as published."""
        self.flush()
        self._store.move_expiry(delta_s, from_s, before_s)

    def close(self) -> None:
        """Store the rest, and release the reserved sequences: none of them was visible."""
        self.flush()
        if not self._waiting:
            with contextlib.suppress(DeviceOpsError):
                self._store.set_ceiling(self.journal.last_sequence)
                self._ceiling = self.journal.last_sequence

    def _store_soon(self, entry: Entry[SystemEvent]) -> None:
        self._unstored.append(entry)
        if len(self._unstored) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:
            # No loop runs during the construction of the server.
            self.flush()

    def _trim(self, slack: int) -> None:
        self.journal.forget(self._store.trim(self._expiry_now(), slack))

    def _promise(self, sequence: int) -> None:
        if sequence > self._ceiling:
            # Events are published on a full disk too; the next event reserves sequences again.
            with contextlib.suppress(DeviceOpsError):
                self._store.set_ceiling(sequence + _PROMISED)
                self._ceiling = sequence + _PROMISED


def chain_filter(resource_ids: frozenset[str]) -> Callable[[Entry[SystemEvent]], bool]:
    """Passes the events of these resources, and all events that those caused, directly or not. Empty: all."""
    passed: OrderedDict[int, None] = OrderedDict()
    """Sequences that later events may name as their cause."""

    def accept(entry: Entry[SystemEvent]) -> bool:
        event = entry.value
        if not resource_ids:
            return True
        if event.resource_id not in resource_ids and event.cause_sequence not in passed:
            return False
        passed[entry.sequence] = None
        if len(passed) > KEPT:
            passed.popitem(last=False)
        return True

    return accept
