"""The log of changes: every change of state in every domain, causes before effects.

Kept in memory, bounded. Sequences rise over restarts (the disk reserves a block of them at a time), so that a reader
that returns with an old sequence learns that it missed events, and never takes a new event for an old one.
"""

import contextlib
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec

from domains.errors import ResourceExhausted
from domains.failure import Failure
from domains.journal import Entry, Journal
from domains.reasons import Domain, Severity
from domains.storage import storage_errors, transaction

KEPT = 10_000
"""Number of events that a reader can go back."""
_PROMISED = 10_000

EventDomain = Domain
"""The domain that owns the changed thing."""


class SystemEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change of state of one thing."""

    domain: EventDomain
    kind: str
    """`device.lost`; stable."""
    resource_id: str = ""
    """Empty: the whole server."""
    message: str = ""
    severity: Severity = Severity.INFO
    cause_sequence: int = 0
    """0: none."""
    failure: Failure | None = None
    snapshot: object = None
    """The domain's value of the thing after the change; None: the thing is gone."""


class EventLog:
    """Writes and keeps the events. One event loop; no thread may touch it."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._db = connection
        self._folder = folder
        with storage_errors(folder):
            (self._ceiling,) = connection.execute("SELECT ceiling FROM event_ceiling").fetchone()
        self.journal: Journal[SystemEvent] = Journal(last_sequence=self._ceiling, limit=KEPT)
        """Every sequence up to the reserved one may have been visible."""

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
            snapshot=snapshot,
        )
        entry = self.journal.next(event)
        self._promise(entry.sequence)
        self.journal.publish(entry)
        return entry.sequence

    def _promise(self, sequence: int) -> None:
        if sequence > self._ceiling:
            # Events are published on a full disk too; the next event reserves sequences again.
            with contextlib.suppress(ResourceExhausted), transaction(self._db, self._folder) as db:
                db.execute("UPDATE event_ceiling SET ceiling = ?", (sequence + _PROMISED,))
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
