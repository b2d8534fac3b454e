"""All jobs: submits, looks up, cancels and deletes them. `domains.processing.jobs.recorder` writes their events."""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence

from domains.clock import ClockStep, ExpiryClock
from domains.errors import DeviceOpsError, ErrorReason, FailedPrecondition
from domains.processing.jobs.ending import end_of
from domains.processing.jobs.event import (
    Cancelling,
    Interrupted,
    JobEvent,
    JobReceipt,
    Paused,
    Pausing,
    Resumed,
    Started,
)
from domains.processing.jobs.filter import JobFilter
from domains.processing.jobs.in_memory import JobsInMemory
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job, JobOptions, ListedJob
from domains.processing.jobs.kinds import Work
from domains.processing.jobs.live_job import LiveJob, receipt_of
from domains.processing.jobs.options_update import updated
from domains.processing.jobs.outcome import Halted, WorkerDeath
from domains.processing.jobs.recorder import JobRecorder
from domains.processing.jobs.session_log import SessionLog
from domains.processing.jobs.state import AT_REST, WAITING, JobState, check_move
from domains.processing.jobs.store import JobStore
from domains.processing.jobs.unread import Unread
from domains.requests import NEW, Asked, Known, Requests
from domains.stop import Origin, Stop, StopKind, stronger

_PAUSE_WAIT_S = 60.0
"""Longest single wait of a resumption for the pause; it then waits again."""


def new_job_id() -> str:
    """A new id of a job."""
    return f"job-{uuid.uuid4().hex[:16]}"


class Jobs:
    """The jobs of one state folder. One event loop; no thread may touch it."""

    def __init__(
        self,
        store: JobStore,
        keep_s: float,
        *,
        expiry: ExpiryClock | None = None,
        date_doubtful: Callable[[], bool] = lambda: False,
        now: Callable[[], Instant] = Instant.now,
    ) -> None:
        """`expiry`: None: the wall clock. `date_doubtful`: whether the dates of earlier processes say nothing
        about the time that has passed since."""
        self._store = store
        self._expiry_now = expiry or ExpiryClock()
        self._expiry_now.on_step.append(self._move_expiry)
        self._date_doubtful = date_doubtful
        self._now = now
        self._recorder = JobRecorder(store, keep_s, now)
        self._last_inherited = store.last_number()
        self._memory = JobsInMemory(store, self._recorder)
        self._queued: set[str] = set()
        """Ids of the live jobs that are QUEUED."""
        self.listeners: list[Callable[[Job], None]] = []
        """Called after every change of a job's state."""
        self.on_options: list[Callable[[Job], None]] = []
        """Called after a change of a job's options."""
        self.requests: Requests[Job] = Requests(self._recall)
        """Requests that created a job."""
        self._stepped_s = 0.0
        """Sum of the steps of the wall clock since the last process ended."""
        self.unread = Unread()
        """Events and blobs that followers of jobs have not received yet."""

    def recover(self) -> list[Job]:
        """Load the last process's unfinished jobs; running ones become INTERRUPTED. Returns all that still wait."""
        for job_id in self._store.unfinished():
            live = self._memory.get(job_id)
            job = live.job
            if job.state is JobState.CANCELLING:
                self._end_at_rest(live, Stop(kind=StopKind.CANCEL, cause=live.cancel_cause))
            elif job.state is JobState.PAUSING:
                stop = Stop(kind=StopKind.PAUSE, cause=live.pause_cause, origin=live.pause_origin)
                self._end_at_rest(live, stop)
            elif job.state is JobState.RUNNING:
                went = WorkerDeath(
                    device_id=job.device_id,
                    message="the server went away and was started again",
                    meant=True,
                    lost=False,
                    alone=False,
                )
                self.record(job_id, end_of(job, None, went, self._now()))
            else:
                # The job waits or could not be read: the listeners do not know it yet.
                self._changed(job)
        return self.unfinished()

    def submit(
        self,
        work: Work,
        options: JobOptions,
        asked: Asked = NEW,
        *,
        detached: bool = True,
        job_id: str = "",
        continued: Job | None = None,
    ) -> tuple[Job, bool]:
        """Store a job, or return the one of the same request. The second value says whether the job is new. `job_id` and
        `continued`: see `draft`."""
        if (earlier := self.requests.known(asked)) is not None:
            return earlier, False
        job = self.draft(
            work, options, asked, detached=detached, now_s=self._now().unix_s, job_id=job_id, continued=continued
        )
        live = self._recorder.begin(job, ahead=len(self._queued))
        self._memory.add(live)
        self._changed(live.job)
        return live.job, True

    @staticmethod
    def draft(
        work: Work,
        options: JobOptions,
        asked: Asked = NEW,
        *,
        detached: bool = True,
        now_s: float | None = None,
        job_id: str = "",
        continued: Job | None = None,
    ) -> Job:
        """The job that `submit` would store. `now_s`: time of its creation; None: now. `job_id`: an id of `new_job_id`;
        empty: a new one. `continued`: the job from whose checkpoint it continues; None: it begins at the start."""
        return Job(
            id=job_id or new_job_id(),
            request_id=asked.request_id,
            request_digest=asked.digest,
            work=work,
            options=options,
            detached=detached,
            state=JobState.QUEUED,
            create_time_s=time.time() if now_s is None else now_s,
            last_sequence=1,
            continued_id=continued.id if continued else "",
            checkpoint=continued.checkpoint if continued else None,
        )

    def ids(self) -> set[str]:
        """Ids of all jobs, running or ended."""
        return self._store.ids()

    def inherited(self, job: Job) -> bool:
        """Whether an earlier process has stored the job."""
        return job.number <= self._last_inherited

    def _recall(self, asked: Asked) -> Known[Job] | None:
        """The job that a request created, as it stands now. Its request is stored with it."""
        job_id = self._store.by_request(asked.request_id)
        job = job_id and self.get(job_id)
        return Known(digest=job.request_digest, answer=job, facts={"job_id": job.id}) if job else None

    def get(self, job_id: str) -> Job:
        """The job as it stands now. Raises JOB_NOT_FOUND."""
        return self.live(job_id).job

    def find(self, job_id: str) -> Job | None:
        """The job as it stands now. None: it does not exist (any more)."""
        return self._memory.find(job_id)

    def live(self, job_id: str) -> LiveJob:
        """The job with its journal, from memory or from disk. Raises JOB_NOT_FOUND."""
        return self._memory.get(job_id)

    def record(self, job_id: str, event: JobEvent) -> Job:
        """Add an event to a job's journal and move the job to the next state. The only way in which a job changes."""
        live = self._memory.unended(job_id)
        if live is None:
            raise FailedPrecondition(f"job {job_id} has ended", ErrorReason.ILLEGAL_STATE, job_id=job_id)
        self._recorder.record(live, event)
        if isinstance(event, Interrupted | Paused):
            # The request to stop ends with its attempt.
            live.stop = None
        if live.job.state.ended:
            live.journal.close()
            self._memory.add(live)
        if live.job.state is not JobState.RUNNING or isinstance(event, Started):
            self._changed(live.job)
        return live.job

    def expired(self, limit: int = 100) -> list[str]:
        """Ids of ended jobs whose retention is over; the caller deletes them."""
        return self._store.expired(self._expiry_now(), limit)

    def age_s(self, job: Job) -> float:
        """Seconds since the job's creation: never negative, and without steps of the wall clock."""
        live = self._memory.unended(job.id)
        if live is not None and live.created_s is not None:
            return self._now().monotonic_s - live.created_s
        return 0.0 if self._date_doubtful() else max(0.0, self._now().unix_s - self._stepped_s - job.create_time_s)

    def _move_expiry(self, step: ClockStep) -> None:
        """Move expiry times with the wall clock."""
        self._store.move_expiry(step)
        self._stepped_s += step.delta_s

    def _changed(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            self._queued.add(job.id)
        else:
            self._queued.discard(job.id)
        for listener in self.listeners:
            listener(job)

    def store_ends(self) -> None:
        """Store the ends of jobs for which the disk had no room, if it has room now."""
        self._recorder.store_ends()

    async def keep_ends_stored(self, every_s: float) -> None:
        """Call `store_ends` periodically, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.store_ends()

    def cancel(self, job_id: str, cause: str = "") -> Job:
        """Ask a job to stop. Changes nothing if the job was asked already or is cancelled. Raises ILLEGAL_STATE."""
        live = self.live(job_id)
        state = live.job.state
        if state in (JobState.CANCELLING, JobState.CANCELLED):
            return live.job
        stop = Stop(kind=StopKind.CANCEL, cause=cause, asked_s=time.monotonic())
        if state in AT_REST:
            return self._end_at_rest(live, stop)
        check_move(job_id, state, JobState.CANCELLING)
        before, live.stop = live.stop, stronger(live.stop, stop)
        try:
            return self.record(job_id, Cancelling(cause=cause))
        except DeviceOpsError:
            # The caller is told that it was not cancelled.
            live.stop = before
            raise

    def pause(self, job_id: str, cause: str = "", origin: Origin = Origin.CALLER) -> Job:
        """Ask a job to pause: at once where it waits, at its next safe point where it runs. Changes nothing if the job
        was asked already. Raises ILLEGAL_STATE, and STORAGE_FULL if there is no room for its progress."""
        live = self.live(job_id)
        state = live.job.state
        if state in (JobState.PAUSING, JobState.PAUSED):
            return live.job
        check_move(job_id, state, JobState.PAUSED if state in AT_REST else JobState.PAUSING)
        self._store.check_room()
        stop = Stop(kind=StopKind.PAUSE, cause=cause, origin=origin, asked_s=time.monotonic())
        if state in AT_REST:
            return self._end_at_rest(live, stop)
        before, live.stop = live.stop, stronger(live.stop, stop)
        try:
            return self.record(job_id, Pausing(origin=origin, cause=cause))
        except DeviceOpsError:
            # The caller is told that it was not paused.
            live.stop = before
            raise

    async def resume(self, job_id: str, cause: str = "") -> Job:
        """Let a paused job wait for its turn again; waits for a job on its way to a pause. A job that waits or runs is
        left as it is. Raises ILLEGAL_STATE."""
        live = self.live(job_id)
        while live.job.state is JobState.PAUSING:
            await live.journal.more(live.journal.last_sequence, _PAUSE_WAIT_S)
        return self.let_go_on(job_id, cause)

    def let_go_on(self, job_id: str, cause: str = "", origin: Origin = Origin.CALLER) -> Job:
        """`resume` for a job that is not on its way to a pause."""
        job = self.get(job_id)
        if job.state is JobState.RUNNING or job.state in WAITING:
            return job
        check_move(job_id, job.state, JobState.QUEUED)
        from_step = job.checkpoint.step if job.checkpoint else 0
        return self.record(job_id, Resumed(from_step=from_step, origin=origin, cause=cause))

    def receipt_so_far(self, job_id: str) -> JobReceipt:
        """The cost of a job that has not ended, without the work of its present attempt."""
        live = self.live(job_id)
        return receipt_of(live.job, live.at(self._now()))

    def keep_sessions(self, log: SessionLog) -> None:
        """Report every event to this log from now on, for the sessions of the jobs."""
        self._recorder.sessions = log

    def update(self, job_id: str, options: JobOptions, mask: Sequence[str], etag: str = "") -> Job:
        """Change the options that the mask names; the same call again changes nothing. Raises as `updated`."""
        live = self.live(job_id)
        now = updated(live.job, options, mask, etag)
        if now != live.job.options:
            self._recorder.change_options(live, now)
            for listener in self.on_options:
                listener(live.job)
        return live.job

    def waited_too_long(self, job_id: str, limit_s: float) -> Job:
        """End a job that no device has started within its queue time limit."""
        message = f"waited longer than its queue_timeout of {limit_s:g} s; give it more time, or a higher priority"
        facts = {"queue_timeout_s": f"{limit_s:g}"}
        stop = Stop(kind=StopKind.TIME_UP, cause=message, reason=ErrorReason.QUEUE_TIMEOUT, facts=facts)
        return self._end_at_rest(self.live(job_id), stop)

    def _end_at_rest(self, live: LiveJob, stop: Stop) -> Job:
        """End or pause a job that runs on no worker; its partial result stays."""
        return self.record(live.job.id, end_of(live.job, stop, Halted(), live.at(self._now())))

    def delete(self, job_id: str) -> None:
        """Delete an ended job and its journal. Raises ILLEGAL_STATE for a job that has not ended."""
        job = self.get(job_id)
        if not job.state.ended:
            message = f"job {job_id} is {job.state}; cancel it first and wait for its end"
            raise FailedPrecondition(message, ErrorReason.ILLEGAL_STATE, job_id=job_id, state=job.state)
        self._store.delete(job_id)
        self._recorder.forget(job_id)
        self._memory.forget(job_id)
        self._recorder.sessions.forget(job)

    async def erased(self) -> None:
        """Return when the state folder holds no text of the jobs that were deleted before the call."""
        await self._store.erasure.complete()

    def page(self, wanted: JobFilter, before: int | None, limit: int) -> tuple[Sequence[ListedJob], int | None]:
        """Up to `limit` jobs that the filter accepts, newest first, and where the next page begins (None: the end).

        A page can be empty and not the last: a call looks at a bounded number of jobs.
        """
        page = self._store.page(wanted, before, limit, self._recorder.owed())
        return [job for job in map(self._memory.listed, page.rows) if wanted.accepts(job)], page.place

    def unfinished(self) -> list[Job]:
        """Jobs that have not ended, oldest first."""
        return [live.job for live in self._memory.all_unended()]
