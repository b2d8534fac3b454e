"""Writes events into jobs' journals: durable before anybody sees them, one sequence that goes on above all that was seen.

The newest-only events (progress, previews) are seen and not stored. So that a restart goes on above their sequences too,
`_CEILING_STEP` numbers at a time are promised on disk.
"""

import contextlib

import msgspec
import structlog

from domains.errors import DeviceOpsError, ResourceExhausted
from domains.failure import Failure
from domains.journal import Entry, Journal
from domains.processing.jobs.event import NEWEST_ONLY, STATE_AFTER, Cancelled, Failed, JobEvent, Queued, Succeeded
from domains.processing.jobs.job import Job
from domains.processing.jobs.live_job import LiveJob, after, stored
from domains.processing.jobs.rows import StoredJob, UnreadableRow
from domains.processing.jobs.state import JobState, check_move
from domains.processing.jobs.store import JobStore
from domains.processing.jobs.unreadable import given_up

_CEILING_STEP = 1000

_log = structlog.get_logger()


class JobRecorder:
    """The only writer of journals. One event loop."""

    def __init__(self, store: JobStore, keep_s: float) -> None:
        self._store = store
        self._keep_s = keep_s
        self._owed: dict[str, tuple[Job, Entry[JobEvent]]] = {}
        """Ends that were told and are not on disk yet: there was no room."""

    def owes(self, job_id: str) -> bool:
        """Whether the end of a job is known in memory alone."""
        return job_id in self._owed

    def owed(self) -> list[str]:
        """Ids of jobs whose end is known in memory alone."""
        return list(self._owed)

    def forget(self, job_id: str) -> None:
        """The job is deleted."""
        self._owed.pop(job_id, None)

    def store_ends(self) -> None:
        """Store the ends that found no room; those that find none still are kept for the next time."""
        for job_id, (job, entry) in list(self._owed.items()):
            try:
                self._store.record(stored(job), entry, self._expiry(job))
            except DeviceOpsError:
                return
            del self._owed[job_id]
            _log.info("the end of a job is stored after all", job_id=job_id)

    def begin(self, job: Job, ahead: int) -> LiveJob:
        """Store a new job with its first event; `ahead` jobs wait before it."""
        journal: Journal[JobEvent] = Journal()
        first = journal.next(Queued(position=ahead), now_s=job.create_time_s)
        job = self._store.add(job, first, _CEILING_STEP)
        journal.publish(first)
        return LiveJob(job, journal, _CEILING_STEP)

    def take_up(self, found: StoredJob | UnreadableRow) -> LiveJob:
        """A stored job with its journal; FAILED if it cannot be read."""
        if isinstance(found, UnreadableRow):
            found = self._give_up(found)
        closed = found.job.state.ended
        last_sequence = 0 if closed else found.ceiling
        return LiveJob(found.job, Journal(found.events, last_sequence=last_sequence, closed=closed), found.ceiling)

    def _give_up(self, row: UnreadableRow) -> StoredJob:
        """End a job that cannot be read, on disk too, so that every list and filter tells the same."""
        ended = given_up(row, self._store.readable_events(row.record.id))
        job = ended.job
        _log.error("a stored job cannot be read", job_id=job.id, kind=row.kind, version=row.version, why=row.problem)
        # Without room on the disk, the next reader ends it again.
        with contextlib.suppress(ResourceExhausted):
            self._store.replace(job, ended.events, self._expiry(job))
        return ended

    def record(self, live: LiveJob, event: JobEvent) -> None:
        """Add an event, and bring the job to the state that follows."""
        state = STATE_AFTER.get(type(event), live.job.state)
        if state is not live.job.state:
            check_move(live.job.id, live.job.state, state)
        entry = live.journal.next(event)
        self._make_room(live, entry.sequence)
        slot = NEWEST_ONLY.get(type(event), "")
        job = after(live.job, event, entry, state)
        if not slot:
            job, entry = self._store_or_fail(job, entry)
        live.job = job
        live.journal.publish(entry, slot=slot)

    def _store_or_fail(self, job: Job, entry: Entry[JobEvent]) -> tuple[Job, Entry[JobEvent]]:
        """Make it durable. An end that cannot be stored (a full disk) is told all the same, as the failure that it is."""
        try:
            self._store.record(stored(job), entry, self._expiry(job))
        except DeviceOpsError as error:
            if not job.state.ended:
                raise
            _log.error("the end of a job could not be stored", job_id=job.id, reason=error.reason)
            failed = _unstored(entry.value, error)
            entry = Entry(entry.sequence, entry.time_s, failed)
            job = after(job, failed, entry, JobState.FAILED)
            self._owed[job.id] = job, entry
        return job, entry

    def _expiry(self, job: Job) -> float | None:
        if job.end_time_s is None:
            return None
        return job.end_time_s + (self._keep_s if job.options.keep_for_s is None else job.options.keep_for_s)

    def _make_room(self, live: LiveJob, sequence: int) -> None:
        if sequence > live.ceiling:
            live.ceiling = sequence + _CEILING_STEP
            self._store.raise_ceiling(live.job.id, live.ceiling)


def _unstored(end: JobEvent, error: DeviceOpsError) -> Failed:
    """What is told of an end that could not be stored. What was made before is on disk already."""
    assert isinstance(end, Succeeded | Failed | Cancelled), "only an end is told before it is stored"
    failure = end.failure if isinstance(end, Failed) else Failure.of(error)
    failure = msgspec.structs.replace(failure, state_consistent=False)
    return Failed(failure=failure, receipt=end.receipt, result=end.result)
