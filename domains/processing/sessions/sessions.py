"""All sessions: opens, looks up, changes, pauses, cancels and closes them.

The state of the session and of a job decides what the session does to the job, so that it holds over a restart:
a job that runs in a paused session is paused; a job that the session paused continues when the session is not paused any
more; a closing session without jobs is closed.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import msgspec
import structlog

from domains.clock import ClockStep, ExpiryClock
from domains.errors import DeviceOpsError, ErrorReason, FailedPrecondition, NotFound, ResourceExhausted, excerpt
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.sessions.idle import CallLater, IdleTimers, loop_timer
from domains.processing.sessions.leading import LedJobs, must_follow
from domains.processing.sessions.live_session import Change, LiveSession
from domains.processing.sessions.log import CEILING_STEP, JobNews
from domains.processing.sessions.news import SessionNews
from domains.processing.sessions.session import (
    CloseAction,
    Session,
    SessionFilter,
    SessionSettings,
    SessionState,
    SessionTotals,
    SessionView,
    images_made,
)
from domains.processing.sessions.settings import changed, check_settings
from domains.processing.sessions.store import SessionStore, StoredSession
from domains.processing.sessions.terms import SessionTerms
from domains.requests import NEW, Asked, Known, Requests

MAX_OPEN = 1000
"""Most sessions at a time; more would be a fault of the callers."""
_NO_MORE = (SessionState.CLOSING, SessionState.CLOSED)
_log = structlog.get_logger()


def loop_soon(call: Callable[[], None]) -> None:
    """Call after the present callback of the event loop."""
    asyncio.get_running_loop().call_soon(call)


class Sessions:
    """The sessions of one state folder. One event loop; no thread may touch it."""

    def __init__(
        self,
        store: SessionStore,
        jobs: Jobs,
        keep_s: float,
        device_bytes: Callable[[str], int | None],
        *,
        expiry: ExpiryClock | None = None,
        max_open: int = MAX_OPEN,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        soon: Callable[[Callable[[], None]], None] = loop_soon,
        call_later: CallLater = loop_timer,
    ) -> None:
        """`keep_s`: how long an ended session is kept. `device_bytes`: see `SessionTerms`. `expiry`: None: the wall clock.
        `soon`: calls a function when all listeners of a job have been called."""
        self._store = store
        self._jobs = jobs
        self._keep_s = keep_s
        self._max_open = max_open
        self._now = now
        self._expiry_now = expiry or ExpiryClock(now)
        self._expiry_now.on_step.append(self._move_expiry)
        self._clock = clock
        self._soon = soon
        self._live: dict[str, LiveSession] = {}
        """The sessions that have not ended."""
        self.terms = SessionTerms(self._live, store, device_bytes)
        self._log = JobNews(store, self._live)
        self._led = LedJobs(jobs)
        self._idle = IdleTimers(lambda session_id: self.close(session_id), call_later)
        self.requests: Requests[SessionView] = Requests(self._recall)
        """Requests that opened a session."""
        self.listeners: list[Callable[[SessionView, SessionView | None], None]] = []
        """Called after every change of a session itself, with the session before it; None: it was opened."""
        self.on_terms: list[Callable[[str], None]] = []
        """Called with the id of a session whose jobs may start now, or may not any more."""
        jobs.keep_sessions(self._log)
        jobs.listeners.append(self._job_changed)
        for found in store.unended():
            self._live[found.session.id] = LiveSession(found, store.last_sequence(found.session.id), clock)

    def begin(self) -> None:
        """Continue after the recovery of the jobs: end what was closing, and watch for idle sessions."""
        for live in list(self._live.values()):
            self._settle(live)
            self._idle.arm(live)

    def _recall(self, asked: Asked) -> Known[SessionView] | None:
        session_id = self._store.by_request(asked.request_id)
        if session_id is None:
            return None
        view = self.get(session_id)
        return Known(digest=view.session.request_digest, answer=view, facts={"session_id": session_id})

    def open(self, settings: SessionSettings, asked: Asked = NEW) -> SessionView:
        """Open a session, or return the one of the same request. Raises INVALID_FIELD, QUOTA_EXCEEDED or STORAGE_FULL."""
        if (earlier := self.requests.known(asked)) is not None:
            return earlier
        check_settings(settings)
        if len(self._live) >= self._max_open:
            message = f"{self._max_open} sessions have not ended; close those that are not needed"
            raise ResourceExhausted(message, ErrorReason.QUOTA_EXCEEDED, limit=self._max_open)
        now_s = self._now()
        session = Session(
            id=f"ses-{uuid.uuid4().hex[:16]}",
            request_id=asked.request_id,
            request_digest=asked.digest,
            settings=settings,
            create_time_s=now_s,
            update_time_s=now_s,
        )
        session = self._store.add(session, CEILING_STEP, SessionView(session=session, last_sequence=1))
        found = StoredSession(session=session, totals=SessionTotals(), ceiling=0)
        live = self._live[session.id] = LiveSession(found, 0, self._clock)
        live.ceiling = CEILING_STEP
        live.show(1, Change(view=SessionView(session=session, last_sequence=1)), now_s)
        self._idle.arm(live)
        self._tell(self.view(live), None)
        return self.view(live)

    def live(self, session_id: str, field: str = "session_id") -> LiveSession:
        """The session, from memory or from disk. Raises SESSION_NOT_FOUND. `field`: the field that names it."""
        if (live := self._live.get(session_id)) is not None:
            return live
        found = self._store.get(session_id)
        if found is None:
            message = f"there is no session {excerpt(session_id)!r}; open one with OpenSession"
            raise NotFound(message, ErrorReason.SESSION_NOT_FOUND, session_id=excerpt(session_id), field=field)
        return LiveSession(found, self._store.last_sequence(session_id), self._clock)

    def get(self, session_id: str) -> SessionView:
        """The session as it stands now; counts as a sign of life. Raises SESSION_NOT_FOUND."""
        live = self.live(session_id)
        live.touch()
        return self.view(live)

    def view(self, live: LiveSession) -> SessionView:
        """A session with its jobs and what it has used."""
        totals = live.totals
        for job_id in live.jobs:
            job = self._jobs.get(job_id)
            totals = totals.with_job(None, self._jobs.receipt_so_far(job_id), images_made(job))
        session_id = live.session.id
        return SessionView(
            session=live.session,
            **live.counts(),
            totals=totals,
            device_bytes=self.terms.device_bytes(session_id) if live.jobs else 0,
            result_bytes=self._store.result_bytes(session_id),
            last_sequence=live.last_sequence,
        )

    def page(self, wanted: SessionFilter, before: int | None, limit: int) -> tuple[Sequence[SessionView], int | None]:
        """Up to `limit` sessions that the filter accepts, newest first, and where the next page begins (None: the end)."""
        found, place = self._store.page(wanted, before, limit)
        return [self.view(self.live(session.id)) for session in found], place

    def update(self, session_id: str, settings: SessionSettings, mask: Sequence[str], etag: str = "") -> SessionView:
        """Change the settings that the mask names. Raises as `changed`, and ILLEGAL_STATE for an ended session."""
        live = self.live(session_id)
        now = changed(live.session, settings, mask, etag)
        self._check_not(live, SessionState.CLOSED)
        live.touch()
        if now != live.session.settings:
            self._change(live, settings=now, update_time_s=self._now())
            self._idle.arm(live)
            self._terms(live)
        return self.view(live)

    def pause(self, session_id: str, cause: str = "") -> SessionView:
        """Start no jobs any more, and pause those that run. Raises ILLEGAL_STATE."""
        live = self.live(session_id)
        self._check_not(live, *_NO_MORE)
        live.touch()
        if live.session.state is not SessionState.PAUSED:
            self._change(live, state=SessionState.PAUSED, cause=cause, update_time_s=self._now())
            self._terms(live)
        self._led.pause(live)
        return self.view(live)

    def resume(self, session_id: str, cause: str = "") -> SessionView:
        """Start jobs again, and resume those that the session paused. Raises ILLEGAL_STATE."""
        live = self.live(session_id)
        self._check_not(live, *_NO_MORE)
        live.touch()
        if live.session.state is not SessionState.OPEN:
            self._change(live, state=SessionState.OPEN, cause=cause, update_time_s=self._now())
        self._led.go_on(live)
        self._terms(live)
        return self.view(live)

    def cancel(self, session_id: str, cause: str = "") -> tuple[SessionView, int]:
        """Cancel all jobs; returns how many were asked by this call. Raises ILLEGAL_STATE for an ended session."""
        live = self.live(session_id)
        self._check_not(live, SessionState.CLOSED)
        live.touch()
        count = self._led.cancel(live, cause)
        return self.view(live), count

    def close(self, session_id: str, action: CloseAction = CloseAction.FINISH) -> SessionView:
        """Take no new jobs, and end the session when its jobs have ended. An ended session stays as it is."""
        live = self.live(session_id)
        if live.session.state is SessionState.CLOSED:
            return self.view(live)
        live.touch()
        if live.session.state is not SessionState.CLOSING:
            self._change(live, state=SessionState.CLOSING, update_time_s=self._now())
        cause = f"session {session_id} was closed"
        match action:
            case CloseAction.FINISH:
                pass
            case CloseAction.CANCEL_PENDING:
                self._led.cancel_pending(live, cause)
            case CloseAction.CANCEL_ALL:
                self._led.cancel(live, cause)
        self._led.go_on(live)
        self._terms(live)
        self._settle(live)
        self._idle.arm(live)
        return self.view(live)

    def admit(self, session_id: str, retry_after_s: float = 0.0) -> None:
        """Take one more job. Raises SESSION_NOT_FOUND, ILLEGAL_STATE for a session that closes, and QUOTA_EXCEEDED with the
        time after which the caller may try again."""
        self.terms.check_room(self.check_open(session_id, "options.session_id"), retry_after_s)

    def check_open(self, session_id: str, field: str = "session_id") -> LiveSession:
        """The session, for something new in it. Raises SESSION_NOT_FOUND, and ILLEGAL_STATE for a session that closes."""
        live = self.live(session_id, field)
        self._check_not(live, *_NO_MORE, field=field)
        live.touch()
        return live

    def news(self, session_id: str, after: int = 0) -> SessionNews:
        """The events of a session after a sequence. Raises SESSION_NOT_FOUND or INVALID_FIELD."""
        return SessionNews(self.live(session_id), self._store, self._jobs, after)

    @contextmanager
    def watching(self, session_id: str) -> Generator[LiveSession]:
        """Count a watcher as a sign of life."""
        live = self.live(session_id)
        live.watchers += 1
        try:
            yield live
        finally:
            live.watchers -= 1
            live.touch()
            self._rearm(live)

    def memory_measured(self) -> None:
        """Look again at the sessions with a limit on their memory."""
        for live in self._live.values():
            if live.session.limits.max_device_bytes:
                self._terms(live)

    def expire(self) -> None:
        """Delete ended sessions after their retention; those whose end the disk had no room for end now."""
        for live in list(self._live.values()):
            self._settle(live)
        self._store.expire(self._expiry_now())

    async def keep_up(self, every_s: float) -> None:
        """Call `expire` periodically, until cancelled. A failure (a full disk) is retried at the next interval."""
        while True:
            try:
                self.expire()
            except DeviceOpsError as error:
                _log.warning("ended sessions could not be deleted", reason=error.reason)
            await asyncio.sleep(every_s)

    def _move_expiry(self, step: ClockStep) -> None:
        """Move expiry times with the wall clock."""
        self._store.move_expiry(step)

    def _change(self, live: LiveSession, **fields: object) -> None:
        """Store a change of the session itself, then show it."""
        before = live.session
        session = msgspec.structs.replace(before, **fields)
        sequence = self._log.next_place(live)
        now = msgspec.structs.replace(self.view(live), session=session, last_sequence=sequence)
        self._store.change(now, None if session.close_time_s is None else session.close_time_s + self._keep_s)
        live.session = session
        live.show(sequence, Change(view=now), self._now())
        self._tell(now, msgspec.structs.replace(now, session=before))

    def _tell(self, view: SessionView, before: SessionView | None) -> None:
        for listener in self.listeners:
            listener(view, before)

    def _terms(self, live: LiveSession) -> None:
        for listener in self.on_terms:
            listener(live.session.id)

    def _rearm(self, live: LiveSession) -> None:
        if live.session.settings.idle_timeout_s is not None and live.session.id in self._live and not live.jobs:
            self._idle.arm(live)

    @staticmethod
    def _check_not(live: LiveSession, *states: SessionState, field: str = "session_id") -> None:
        session = live.session
        if session.state in states:
            message = f"session {session.id} is {session.state}; open another"
            raise FailedPrecondition(
                message, ErrorReason.ILLEGAL_STATE, session_id=session.id, state=session.state, field=field
            )

    def _settle(self, live: LiveSession) -> None:
        """End a closing session without jobs."""
        if live.session.state is not SessionState.CLOSING or live.jobs:
            return
        try:
            self._change(live, state=SessionState.CLOSED, close_time_s=self._now())
        except DeviceOpsError as error:
            # It stays CLOSING until the disk has room.
            _log.warning("the end of a session could not be stored", session_id=live.session.id, reason=error.reason)
            return
        live.journal.close()
        self._live.pop(live.session.id, None)

    def _job_changed(self, job: Job) -> None:
        live = self._live.get(job.options.session_id)
        if live is None:
            return
        if job.state.ended:
            live.jobs.pop(job.id, None)
            live.touch()
        else:
            live.jobs[job.id] = job.state
        if must_follow(live, job):
            # The other listeners receive this change before the changes that follow from it.
            self._soon(lambda: self._follow(live, job.id))

    def _follow(self, live: LiveSession, job_id: str) -> None:
        try:
            self._led.lead(live, job_id)
            self._settle(live)
            self._rearm(live)
        except DeviceOpsError as error:
            _log.warning("a session could not lead its job", session_id=live.session.id, reason=error.reason)
