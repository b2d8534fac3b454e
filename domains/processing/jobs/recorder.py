"""Writes events into journals: durable before they are visible, with sequences that never repeat a visible one.

The newest-only events (progress, previews) are visible but not stored. The disk therefore reserves `_CEILING_STEP`
sequences at a time, so that a restart continues above all visible ones.
"""

import contextlib
from collections.abc import Callable

import msgspec
import structlog

from domains.errors import DeviceOpsError
from domains.failure import Failure
from domains.journal import Entry, Journal
from domains.processing.jobs.event import (
    NEWEST_ONLY,
    STATE_AFTER,
    Cancelled,
    Failed,
    JobEvent,
    Queued,
    Started,
    Succeeded,
)
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.live_job import LiveJob, after, stored
from domains.processing.jobs.rows import StoredJob, UnreadableRow
from domains.processing.jobs.session_log import News, NoSessions, SessionLog
from domains.processing.jobs.state import JobState, check_move
from domains.processing.jobs.store import JobStore
from domains.processing.jobs.unreadable import given_up

_CEILING_STEP = 1000

_log = structlog.get_logger()


class JobRecorder:
    """Writes all journals. One event loop."""

    def __init__(self, store: JobStore, keep_s: float, now: Callable[[], Instant] = Instant.now) -> None:
        self._store = store
        self._now = now
        self._keep_s = keep_s
        self.sessions: SessionLog = NoSessions()
        """Told of each event, for the session of its job."""
        self._owed: dict[str, tuple[Job, Entry[JobEvent], News]] = {}
        """Published ends that are not on disk yet, because the disk was full."""

    def owes(self, job_id: str) -> bool:
        """Whether the end of a job is in memory only."""
        return job_id in self._owed

    def owed(self) -> list[str]:
        """Ids of jobs whose end is in memory only."""
        return list(self._owed)

    def forget(self, job_id: str) -> None:
        """Drop a deleted job."""
        self._owed.pop(job_id, None)

    def store_ends(self) -> None:
        """Store the ends for which the disk had no room; those that still do not fit wait for the next call."""
        for job_id, (job, entry, news) in list(self._owed.items()):
            try:
                self._store.record(stored(job), entry, self._expiry(job), self.sessions.note(news))
            except DeviceOpsError:
                return
            del self._owed[job_id]
            _log.info("the end of a job is stored after all", job_id=job_id)

    def begin(self, job: Job, ahead: int) -> LiveJob:
        """Store a new job with its first event. `ahead`: number of jobs that wait before it."""
        journal: Journal[JobEvent] = Journal()
        first = journal.next(Queued(position=ahead), now_s=job.create_time_s)
        news = self.sessions.news(job, first)
        job = self._store.add(job, first, _CEILING_STEP, self.sessions.note(news))
        journal.publish(first)
        self.sessions.tell(news)
        live = LiveJob(job, journal, _CEILING_STEP)
        live.created_s = self._now().monotonic_s
        return live

    def take_up(self, found: StoredJob | UnreadableRow) -> LiveJob:
        """A stored job with its journal; FAILED if it cannot be read."""
        if isinstance(found, UnreadableRow):
            found = self._give_up(found)
        closed = found.job.state.ended
        last_sequence = 0 if closed else found.ceiling
        return LiveJob(found.job, Journal(found.events, last_sequence=last_sequence, closed=closed), found.ceiling)

    def _give_up(self, row: UnreadableRow) -> StoredJob:
        """End a job that cannot be read, on disk too, so that every list and filter agrees."""
        ended = given_up(row, self._store.readable_events(row.record.id))
        job = ended.job
        _log.error("a stored job cannot be read", job_id=job.id, kind=row.kind, version=row.version, why=row.problem)
        # If the disk is full, the next reader ends the job again.
        with contextlib.suppress(DeviceOpsError):
            self._store.replace(job, ended.events, self._expiry(job))
        return ended

    def record(self, live: LiveJob, event: JobEvent) -> None:
        """Add an event and move the job to the next state."""
        state = STATE_AFTER.get(type(event), live.job.state)
        if state is not live.job.state:
            check_move(live.job.id, live.job.state, state)
        now = self._now()
        entry = live.journal.next(event, now_s=now.unix_s)
        self._make_room(live, entry.sequence)
        slot = NEWEST_ONLY.get(type(event), "")
        job = after(live.job, event, entry, state)
        if isinstance(event, Started):
            job = live.starts(job, now)
        news = self.sessions.news(job, entry)
        if not slot:
            job, entry, news = self._store_or_fail(job, entry, news)
        live.job = job
        live.journal.publish(entry, slot=slot)
        self.sessions.tell(news, slot)

    def change_options(self, live: LiveJob, options: JobOptions) -> None:
        """Store other options of a job."""
        job = msgspec.structs.replace(live.job, options=options)
        if job.id in self._owed:
            # Its end is stored with them as soon as the disk has room.
            self._owed[job.id] = job, *self._owed[job.id][1:]
        else:
            self._store.change_options(stored(job), self._expiry(job))
        live.job = job

    def _store_or_fail(self, job: Job, entry: Entry[JobEvent], news: News) -> tuple[Job, Entry[JobEvent], News]:
        """Make an event durable. An end that cannot be stored (a full disk) is published anyway, as a failure."""
        try:
            self._store.record(stored(job), entry, self._expiry(job), self.sessions.note(news))
        except DeviceOpsError as error:
            if not job.state.ended:
                raise
            _log.error("the end of a job could not be stored", job_id=job.id, reason=error.reason)
            failed = _unstored(entry.value, error)
            entry = Entry(entry.sequence, entry.time_s, failed)
            job = after(job, failed, entry, JobState.FAILED)
            news = msgspec.structs.replace(news, job=job, entry=entry)
            self._owed[job.id] = job, entry, news
        else:
            # The disk has room again. Store the published ends now, or a server that dies would run these jobs again.
            self.store_ends()
        return job, entry, news

    def _expiry(self, job: Job) -> float | None:
        if job.end_time_s is None:
            return None
        return job.end_time_s + (self._keep_s if job.options.keep_for_s is None else job.options.keep_for_s)

    def _make_room(self, live: LiveJob, sequence: int) -> None:
        if sequence > live.ceiling:
            live.ceiling = sequence + _CEILING_STEP
            self._store.raise_ceiling(live.job.id, live.ceiling)


def _unstored(end: JobEvent, error: DeviceOpsError) -> Failed:
    """The failure that is published for an end that could not be stored. Earlier outputs are on disk already."""
    assert isinstance(end, Succeeded | Failed | Cancelled), "only an end is told before it is stored"
    failure = end.failure if isinstance(end, Failed) else Failure.of(error)
    failure = msgspec.structs.replace(failure, state_consistent=False)
    return Failed(failure=failure, receipt=end.receipt, result=end.result)
