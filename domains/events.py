"""The log of changes: every change of state in every domain, causes before effects.

Kept in memory and on disk, bounded by `EventBounds`. Events of one turn of the event loop are stored in one transaction,
before the readers of the log wake. The sequences go on over restarts; a block of them at a time is promised on disk, so
that a new event never has the sequence of one that a reader saw and the disk did not keep.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path

import structlog

from domains.errors import DeviceOpsError, ResourceExhausted
from domains.event_store import TRIM_AT_ONCE, EventRow, EventStore, row_of
from domains.failure import Failure
from domains.journal import Entry, Journal
from domains.reasons import Domain, Severity
from domains.system_event import EventBounds, StoredSnapshot, SystemEvent

BOUNDS = EventBounds()
KEPT = BOUNDS.count
"""Events that a reader can go back."""
_PROMISED = 10_000
_WAITING = 1000
"""Events that wait for room on the disk; the oldest are not stored."""

EventDomain = Domain
"""Who owns the thing that changed."""

_log = structlog.get_logger()


class EventLog:
    """One event loop; no thread may touch it."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        folder: Path,
        *,
        instance_id: str = "",
        bounds: EventBounds = BOUNDS,
        to_store: Callable[[object], StoredSnapshot | None] = lambda snapshot: None,
    ) -> None:
        """`to_store`: the stored form of a snapshot; None: it is not stored."""
        self._store = EventStore(connection, folder, bounds)
        self._instance_id = instance_id
        self._to_store = to_store
        past = self._store.load()
        self._ceiling = past.ceiling
        self.journal: Journal[SystemEvent] = Journal(
            past.entries, last_sequence=past.ceiling, forgotten=past.forgotten, limit=bounds.count
        )
        """Everything up to the promised sequence may have been seen."""
        self._unstored: list[Entry[SystemEvent]] = []
        self._waiting: deque[EventRow] = deque(maxlen=_WAITING)
        with contextlib.suppress(ResourceExhausted):
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
        """Note that something changed; answers the event's number, to be named as the cause of what follows."""
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
        # Before `publish` wakes the readers, so that they see what is stored.
        self._store_soon(entry)
        self.journal.publish(entry)
        return entry.sequence

    def missed(self, position: int) -> bool:
        """Whether events after a reader's position are gone.

        The event at the position itself is gone after a crash whose last events the disk did not keep: others after it may
        be too.
        """
        log = self.journal
        if position <= log.forgotten:
            return position < log.forgotten
        return position < log.last_sequence and position not in log

    def flush(self, slack: int = TRIM_AT_ONCE) -> None:
        """Store what is not stored yet, and delete what is beyond the bounds if that is more than `slack` events."""
        told, self._unstored = self._unstored, []
        self._waiting.extend(row_of(entry, self._to_store(entry.value.snapshot)) for entry in told)
        try:
            if self._waiting:
                self._store.add(self._waiting)
                self._waiting.clear()
            self._trim(slack)
        except (DeviceOpsError, sqlite3.Error) as problem:
            # The readers still hear what happens; the next flush tries again.
            _log.warning("events not stored", waiting=len(self._waiting), problem=str(problem))

    async def keep_bounded(self, every_s: float) -> None:
        """Let old events go now and then, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.flush(slack=0)

    def close(self) -> None:
        """Store the rest. No sequence above the last one was seen, so the next server goes on right after it."""
        self.flush()
        if not self._waiting:
            with contextlib.suppress(ResourceExhausted):
                self._store.set_ceiling(self.journal.last_sequence)
                self._ceiling = self.journal.last_sequence

    def _store_soon(self, entry: Entry[SystemEvent]) -> None:
        self._unstored.append(entry)
        if len(self._unstored) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self.flush)
        except RuntimeError:
            # No loop runs, while the server is put together.
            self.flush()

    def _trim(self, slack: int) -> None:
        self.journal.forget(self._store.trim(time.time(), slack))

    def _promise(self, sequence: int) -> None:
        if sequence > self._ceiling:
            # A full disk keeps nobody from hearing what happens; the next event tries again.
            with contextlib.suppress(ResourceExhausted):
                self._store.set_ceiling(sequence + _PROMISED)
                self._ceiling = sequence + _PROMISED


def chain_filter(resource_ids: frozenset[str]) -> Callable[[Entry[SystemEvent]], bool]:
    """Lets through the events of these things, and whatever those events caused, at any remove. Empty: all."""
    passed: OrderedDict[int, None] = OrderedDict()
    """Numbers that may still be named as a cause."""

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
