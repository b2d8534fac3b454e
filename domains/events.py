"""The log of changes: every change of state in every domain, causes before effects.

Kept in memory, bounded. The numbers go on over restarts (a block of them at a time is promised on disk), so that a reader
who comes back with an old number is told that something was missed, and never reads a new event as an old one.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from domains.errors import ResourceExhausted
from domains.failure import Failure
from domains.storage import storage_errors, transaction

_KEPT = 10_000
_PROMISED = 10_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS event_ceiling (one INTEGER PRIMARY KEY CHECK (one = 1), ceiling INTEGER NOT NULL);
INSERT OR IGNORE INTO event_ceiling (one, ceiling) VALUES (1, 0);
"""


class EventDomain(StrEnum):
    """Who owns the thing that changed."""

    DEVICE = "device"
    MEMORY = "memory"
    MODEL = "model"
    PROCESSING = "processing"


class Severity(StrEnum):
    """How much it matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class SystemEvent:
    """One change of state of one thing."""

    __slots__ = (
        "cause_sequence",
        "domain",
        "failure",
        "kind",
        "message",
        "rendered",
        "resource_id",
        "sequence",
        "severity",
        "snapshot",
        "time_s",
    )

    def __init__(
        self,
        domain: EventDomain,
        kind: str,
        resource_id: str,
        message: str,
        severity: Severity,
        cause_sequence: int,
        failure: Failure | None,
        snapshot: object,
    ) -> None:
        self.sequence = 0
        self.time_s = time.time()
        self.domain = domain
        self.kind = kind
        """`device.lost`; stable."""
        self.resource_id = resource_id
        self.message = message
        self.severity = severity
        self.cause_sequence = cause_sequence
        """0: none."""
        self.failure = failure
        self.snapshot = snapshot
        """The domain's value of the thing after the change; None: it is gone."""
        self.rendered: object = None
        """A place for the edge to keep what it made of the event."""


class EventLog:
    """One event loop; no thread may touch it."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._db = connection
        self._folder = folder
        with storage_errors(folder):
            connection.executescript(_SCHEMA)
            (self._ceiling,) = connection.execute("SELECT ceiling FROM event_ceiling").fetchone()
        self.last_sequence: int = self._ceiling
        """Of the newest event; everything up to it may have been seen."""
        self._forgotten: int = self.last_sequence
        """The highest number that is no longer kept."""
        self._kept: deque[SystemEvent] = deque()
        self._waiting: set[asyncio.Future[None]] = set()

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
        """Note that something changed; answers the event's number, to be named as the cause of what follows."""
        event = SystemEvent(domain, kind, resource_id, message, severity, cause, failure, snapshot)
        event.sequence = self.last_sequence + 1
        self._promise(event.sequence)
        self.last_sequence = event.sequence
        self._kept.append(event)
        if len(self._kept) > _KEPT:
            self._forgotten = self._kept.popleft().sequence
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
        return event.sequence

    def missed(self, after: int) -> bool:
        """Whether an event after this number is no longer kept."""
        return after < self._forgotten

    def after(self, sequence: int) -> list[SystemEvent]:
        """What is kept of what came after, in order."""
        found: list[SystemEvent] = []
        for event in reversed(self._kept):
            if event.sequence <= sequence:
                break
            found.append(event)
        return found[::-1]

    async def more(self, sequence: int) -> None:
        """Wait for an event after `sequence`."""
        if self.last_sequence > sequence:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _promise(self, sequence: int) -> None:
        if sequence > self._ceiling:
            # A full disk keeps nobody from hearing what happens; the next event tries again.
            with contextlib.suppress(ResourceExhausted), transaction(self._db, self._folder) as db:
                db.execute("UPDATE event_ceiling SET ceiling = ?", (sequence + _PROMISED,))
                self._ceiling = sequence + _PROMISED


def chain_filter(resource_ids: frozenset[str]) -> Callable[[SystemEvent], bool]:
    """Lets through the events of these things, and whatever those events caused, at any remove. Empty: all."""
    passed: deque[int] = deque(maxlen=_KEPT)

    def accept(event: SystemEvent) -> bool:
        hit = not resource_ids or event.resource_id in resource_ids or event.cause_sequence in passed
        if hit and resource_ids:
            passed.append(event.sequence)
        return hit

    return accept
