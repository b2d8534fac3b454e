"""Reads the events of a session: older ones from disk, newer ones from memory."""

from collections.abc import AsyncGenerator, Iterator

import msgspec

from domains.errors import InvalidRequest, NotFound, Violation
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.session_log import News
from domains.processing.jobs.state import JobState
from domains.processing.sessions.live_session import Change, LiveSession, SessionEvent
from domains.processing.sessions.store import SessionStore, StoredNews

_AT_ONCE = 200
_WAIT_S = 60.0
"""Longest single wait for the journal; the reader then waits again."""

Told = tuple[int, SessionEvent]
"""An event of a session with its sequence."""


class SessionNews:
    """One reader's position among the events of a session."""

    def __init__(self, live: LiveSession, store: SessionStore, jobs: Jobs, after: int) -> None:
        """Raises INVALID_FIELD for a position beyond the last event."""
        last = live.journal.last_sequence
        if not 0 <= after <= last:
            message = f"{after} is not within 0..{last}; give the session_sequence that you saw last, or 0 for all"
            raise InvalidRequest([Violation(field="after_sequence", message=message, allowed=f"0..{last}")])
        self._live = live
        self._store = store
        self._jobs = jobs
        self._position = after

    @property
    def at_end(self) -> bool:
        """Whether there is nothing to tell at this moment."""
        return self._position >= self._live.last_sequence

    async def events(self) -> AsyncGenerator[Told]:
        """All events after the position, to the session's end."""
        journal = self._live.journal
        while True:
            while self._position < journal.forgotten:
                for told in self._from_disk(journal.forgotten):
                    yield told
            shown = self._live.last_sequence
            for entry in journal.after(self._position):
                self._position = entry.sequence
                yield entry.sequence, entry.value
            # The newest events may have been those of a job that was deleted.
            self._position = max(self._position, shown)
            if journal.closed and self._position >= journal.last_sequence:
                return
            await journal.more(self._position, _WAIT_S)

    def _from_disk(self, end: int) -> Iterator[Told]:
        rows = self._store.news(self._live.session.id, self._position, _AT_ONCE)
        for row in rows:
            self._position = row.sequence
            if (event := self._event(row)) is not None:
                yield row.sequence, event
        if len(rows) < _AT_ONCE:
            self._position = max(self._position, end)

    def _event(self, row: StoredNews) -> SessionEvent | None:
        if row.view is not None:
            return Change(view=row.view)
        try:
            live = self._jobs.live(row.job_id)
        except NotFound:
            # It was deleted meanwhile.
            return None
        entries = live.journal.after(row.job_sequence - 1)
        if not entries or entries[0].sequence != row.job_sequence:
            return None
        # `state` is the job's state after this event, whatever happened since.
        job = msgspec.structs.replace(live.job, state=JobState(row.state))
        return News(number=row.sequence, job=job, entry=entries[0])
