"""A session in memory."""

import time
from collections import Counter
from collections.abc import Callable

import msgspec

from domains.journal import Journal
from domains.processing.jobs.session_log import News
from domains.processing.jobs.state import JobState
from domains.processing.sessions.session import COUNTED_AS, Session, SessionState, SessionTotals, SessionView
from domains.processing.sessions.store import StoredSession

KEPT = 256
"""Events of a session that stay in memory; older ones are read from disk."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the session itself."""

    view: SessionView
    """The session after it."""


SessionEvent = News | Change


class LiveSession:
    """A session in memory, with its unfinished jobs and its newest events."""

    def __init__(self, found: StoredSession, last_sequence: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`last_sequence`: of the newest event that is stored."""
        self.session: Session = found.session
        self.totals: SessionTotals = found.totals
        """The sum of the ended jobs."""
        self.ceiling = found.ceiling
        self.last_sequence = last_sequence
        """Of the newest event that was shown."""
        closed = found.session.state is SessionState.CLOSED
        self.journal: Journal[SessionEvent] = Journal(
            last_sequence=last_sequence if closed else found.ceiling, closed=closed, limit=KEPT
        )
        self.jobs: dict[str, JobState] = {}
        """The unfinished jobs, oldest first."""
        self.watchers = 0
        self._clock = clock
        self.used_s = clock()
        """Time of the last call, of the last watcher's end and of the last job's end, on the monotonic clock."""

    def touch(self) -> None:
        """Note that the session is used now."""
        self.used_s = self._clock()

    def idle_s(self) -> float:
        """Seconds without a job, a watcher and a call."""
        return 0.0 if self.jobs or self.watchers else self._clock() - self.used_s

    def counts(self) -> dict[str, int]:
        """Number of unfinished jobs, by the field of `SessionView` that counts them."""
        return dict(Counter(COUNTED_AS[state] for state in self.jobs.values()))

    def next_sequence(self) -> int:
        """The sequence of the next event. Readers may have seen every sequence up to the journal's last one."""
        return self.journal.last_sequence + 1

    def show(self, sequence: int, event: SessionEvent, now_s: float, slot: str = "") -> None:
        """Show an event to the followers."""
        entry = self.journal.next(event, now_s=now_s)
        # The place was given before the event was stored.
        entry.sequence = sequence
        self.last_sequence = sequence
        self.journal.publish(entry, slot=slot)
