"""Every job there is: submitting, looking up, journalling. The only writer of job states.

An event is durable before anybody sees it; the newest-only ones (progress, previews) are seen and not stored. Sequences go
on above everything a watcher may have seen, also after a crash: `_CEILING_STEP` numbers at a time are promised on disk.
"""

import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec
import structlog

from domains.errors import (
    AlreadyExists,
    DeviceOpsError,
    ErrorReason,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    Violation,
)
from domains.journal import Entry, Journal
from domains.processing.job import Job, JobOptions, Work
from domains.processing.job_event import (
    END_STATE,
    NEWEST_ONLY,
    STATE_AFTER,
    Cancelled,
    Cancelling,
    Failed,
    Failure,
    Interrupted,
    JobEvent,
    JobReceipt,
    Moved,
    Queued,
    Started,
)
from domains.processing.job_state import JobState, check_move
from domains.processing.job_store import JobStore
from domains.progress import PreviewReady, Receipt, StageStarted

_CEILING_STEP = 1000
_ENDED_KEPT = 256
"""Ended jobs whose journals stay in memory; older ones are read from disk when asked for."""
_REQUEST_ID = re.compile(r"[\x21-\x7e]{0,64}")

_log = structlog.get_logger()


class LiveJob:
    """A job in memory, with its journal."""

    __slots__ = ("cancel_time_s", "ceiling", "job", "journal")

    def __init__(self, job: Job, journal: Journal[JobEvent], ceiling: int) -> None:
        self.job = job
        self.journal = journal
        self.ceiling = ceiling
        self.cancel_time_s: float | None = None
        """When its cancellation was asked for, on `time.monotonic`."""

    @property
    def cancel_cause(self) -> str:
        """What the caller gave as the reason for its cancellation; empty: none, or it was not asked for."""
        causes = (entry.value.cause for entry in self.journal.after(0) if isinstance(entry.value, Cancelling))
        return next(causes, "")


class Jobs:
    """The jobs of one state folder. One event loop; no thread may touch it."""

    def __init__(self, store: JobStore, keep_s: float) -> None:
        self._store = store
        self._keep_s = keep_s
        self._live: dict[str, LiveJob] = {}
        self._ended: OrderedDict[str, LiveJob] = OrderedDict()
        self.on_change: Callable[[Job], None] = lambda job: None
        """Called after every change of a job's state; whoever runs jobs listens here."""

    def recover(self) -> list[Job]:
        """Take up what the last process left. Running jobs become INTERRUPTED; answers everything that is to run."""
        for job in self._store.unfinished():
            ceiling = self._store.ceiling(job.id)
            journal = Journal(self._store.events(job.id), last_sequence=ceiling)
            self._live[job.id] = LiveJob(job, journal, ceiling)
            if job.state is JobState.CANCELLING:
                cause, receipt = self._live[job.id].cancel_cause, empty_receipt(job)
                self.record(job.id, Cancelled(stage=job.stage, latency_s=0.0, cause=cause, receipt=receipt))
            elif job.state in (JobState.RUNNING, JobState.PAUSING):
                message = "the server went away and was started again"
                self.record(job.id, Interrupted(reason=ErrorReason.WORKER_RESTARTING, message=message))
            else:
                # Nothing of it changes, but whoever runs jobs has to hear that it waits.
                self.on_change(job)
        return [live.job for live in self._live.values()]

    def submit(
        self, work: Work, options: JobOptions, *, request_id: str = "", detached: bool = True
    ) -> tuple[Job, bool]:
        """Store a job. The same `request_id` answers the same job; the second value says whether it is new."""
        if not _REQUEST_ID.fullmatch(request_id):
            field = Violation(
                field="request_id", message="at most 64 visible ASCII characters", allowed="0..64 characters"
            )
            raise InvalidRequest([field])
        if request_id and (earlier := self._store.by_request(request_id)) is not None:
            return self._same_request(earlier, work), False
        job = self.draft(work, options, request_id=request_id, detached=detached)
        journal: Journal[JobEvent] = Journal()
        ahead = sum(live.job.state is JobState.QUEUED for live in self._live.values())
        first = journal.next(Queued(position=ahead), now_s=job.create_time_s)
        self._store.add(job, first, _CEILING_STEP)
        self._live[job.id] = LiveJob(job, journal, _CEILING_STEP)
        journal.publish(first)
        self.on_change(job)
        return job, True

    @staticmethod
    def draft(work: Work, options: JobOptions, *, request_id: str = "", detached: bool = True) -> Job:
        """The job that `submit` would store."""
        return Job(
            id=f"job-{uuid.uuid4().hex[:16]}",
            request_id=request_id,
            work=work,
            options=options,
            detached=detached,
            state=JobState.QUEUED,
            create_time_s=time.time(),
            last_sequence=1,
        )

    def knows(self, job_id: str) -> bool:
        """Whether there is such a job, running or ended."""
        return job_id in self._live or self._store.get(job_id) is not None

    def knows_request(self, request_id: str) -> bool:
        """Whether a job was submitted with this id."""
        return self._store.by_request(request_id) is not None

    def _same_request(self, earlier: Job, work: Work) -> Job:
        """The earlier job, unless the id is being used for something else."""
        asked = getattr(work, "asked", work)
        if getattr(earlier.work, "asked", earlier.work) != asked:
            message = (
                f"the request_id names job {earlier.id}, which was asked something else; use a new id for new work"
            )
            raise AlreadyExists(message, ErrorReason.ID_TAKEN, job_id=earlier.id)
        return self.get(earlier.id)

    def get(self, job_id: str) -> Job:
        """The job as it stands now; NOT_FOUND otherwise."""
        return self.live(job_id).job

    def live(self, job_id: str) -> LiveJob:
        """The job with its journal, from memory or from disk."""
        found = self._live.get(job_id) or self._ended.get(job_id)
        return found if found is not None else self._from_disk(job_id)

    def _from_disk(self, job_id: str) -> LiveJob:
        job = self._store.get(job_id)
        if job is None:
            message = f"there is no job {job_id!r}; it may have been deleted or have expired"
            raise NotFound(message, ErrorReason.JOB_NOT_FOUND, job_id=job_id)
        live = LiveJob(job, Journal(self._store.events(job_id), closed=True), self._store.ceiling(job_id))
        self._remember(live)
        return live

    def record(self, job_id: str, event: JobEvent) -> Job:
        """Add an event to a job's journal and bring the job to the state that follows. The one way a job changes."""
        live = self._live.get(job_id)
        if live is None:
            raise FailedPrecondition(f"job {job_id} has ended", ErrorReason.ILLEGAL_STATE, job_id=job_id)
        state = STATE_AFTER.get(type(event), live.job.state)
        if state is not live.job.state:
            check_move(job_id, live.job.state, state)
        entry = live.journal.next(event)
        self._make_room(live, entry.sequence)
        slot = NEWEST_ONLY.get(type(event), "")
        job = _after(live.job, event, entry, state)
        if not slot:
            job, entry = self._store_or_fail(live, job, entry)
        live.job = job
        live.journal.publish(entry, slot=slot)
        if job.state.ended:
            self._end(live)
        if state is not JobState.RUNNING or isinstance(event, Started):
            self.on_change(job)
        return job

    def _store_or_fail(self, live: LiveJob, job: Job, entry: Entry[JobEvent]) -> tuple[Job, Entry[JobEvent]]:
        """Make it durable. An end that cannot be stored (a full disk) is told all the same, as the failure that it is."""
        try:
            self._store.record(_stored(job), entry, self._expiry(job))
        except DeviceOpsError as error:
            if not job.state.ended:
                raise
            _log.error("the end of a job could not be stored", job_id=job.id, reason=error.reason)
            if isinstance(entry.value, Failed):
                return job, entry
            failed = Failed(failure=Failure.of(error), receipt=getattr(entry.value, "receipt", empty_receipt(job)))
            entry = Entry(entry.sequence, entry.time_s, failed)
            job = _after(live.job, failed, entry, JobState.FAILED)
        return job, entry

    def _expiry(self, job: Job) -> float | None:
        if job.end_time_s is None:
            return None
        return job.end_time_s + (self._keep_s if job.options.keep_for_s is None else job.options.keep_for_s)

    def expired(self, limit: int = 100) -> list[str]:
        """Ended jobs that have been kept long enough; the caller deletes them."""
        return self._store.expired(time.time(), limit)

    def _make_room(self, live: LiveJob, sequence: int) -> None:
        if sequence > live.ceiling:
            live.ceiling = sequence + _CEILING_STEP
            self._store.raise_ceiling(live.job.id, live.ceiling)

    def _end(self, live: LiveJob) -> None:
        live.journal.close()
        del self._live[live.job.id]
        self._remember(live)

    def _remember(self, live: LiveJob) -> None:
        self._ended[live.job.id] = live
        while len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)

    def cancel(self, job_id: str, cause: str = "") -> Job:
        """Ask a job to stop. Cancelling one that was asked already or has been cancelled changes nothing."""
        live = self.live(job_id)
        state = live.job.state
        if state in (JobState.CANCELLING, JobState.CANCELLED):
            return live.job
        if state in (JobState.QUEUED, JobState.PAUSED, JobState.INTERRUPTED):
            receipt = empty_receipt(live.job)
            return self.record(job_id, Cancelled(stage=live.job.stage, latency_s=0.0, cause=cause, receipt=receipt))
        check_move(job_id, state, JobState.CANCELLING)
        live.cancel_time_s = time.monotonic()
        return self.record(job_id, Cancelling(cause=cause))

    def delete(self, job_id: str) -> None:
        """Forget an ended job and its journal."""
        job = self.get(job_id)
        if not job.state.ended:
            message = f"job {job_id} is {job.state}; cancel it first and wait for its end"
            raise FailedPrecondition(message, ErrorReason.ILLEGAL_STATE, job_id=job_id, state=job.state)
        self._store.delete(job_id)
        self._ended.pop(job_id, None)

    def page(self, before: int | None, limit: int, accept: Callable[[Job], bool]) -> tuple[Sequence[Job], int | None]:
        """Up to `limit` jobs that `accept` lets through, newest first, and where the next page begins (None: the end)."""
        chosen: list[Job] = []
        while len(chosen) < limit:
            rows = self._store.page(before, limit)
            for number, stored in rows:
                live = self._live.get(stored.id)
                job = live.job if live else stored
                if accept(job):
                    chosen.append(job)
                before = number
                if len(chosen) == limit:
                    return chosen, number
            if len(rows) < limit:
                return chosen, None
        return chosen, before

    def unfinished(self) -> list[Job]:
        """Jobs that have not ended, oldest first."""
        return [live.job for live in self._live.values()]


def _after(job: Job, event: JobEvent, entry: Entry[JobEvent], state: JobState) -> Job:
    """The job as it is after an event."""
    changes: dict[str, object] = {"last_sequence": entry.sequence, "state": state}
    match event:
        case Started():
            changes |= {"device_id": event.device_id, "attempt": event.attempt}
            changes |= {} if job.start_time_s else {"start_time_s": entry.time_s}
        case StageStarted():
            changes |= {"stage": event.stage}
        case Moved():
            changes |= {"progress": event, "stage": event.at.stage}
        case Interrupted():
            changes |= {"progress": None}
        case PreviewReady():
            pass
        case _ if type(event) in END_STATE:
            changes |= {"end_time_s": entry.time_s}
            changes |= {name: getattr(event, name, None) for name in ("failure", "receipt", "result")}
        case _:
            pass
    return msgspec.structs.replace(job, **changes)


def _stored(job: Job) -> Job:
    """What of a job goes to disk: progress is news, not state."""
    return job if job.progress is None else msgspec.structs.replace(job, progress=None)


def empty_receipt(job: Job) -> JobReceipt:
    """The receipt of a job that ended without a word from a worker."""
    now = time.time()
    start = job.start_time_s or now
    return JobReceipt(
        work=Receipt(),
        queue_s=max(0.0, start - job.create_time_s),
        run_s=max(0.0, now - start),
        attempts=job.attempt,
        device_id=job.device_id,
    )
