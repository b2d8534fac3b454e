"""The jobs in memory: all that have not ended, and those that ended last. Others are loaded from disk on request."""

from collections import OrderedDict

from domains.errors import ErrorReason, NotFound
from domains.processing.jobs.job import Job, ListedJob
from domains.processing.jobs.live_job import LiveJob
from domains.processing.jobs.recorder import JobRecorder
from domains.processing.jobs.rows import UnreadableRow, as_listed
from domains.processing.jobs.store import JobStore

_ENDED_KEPT = 256
"""Ended jobs whose journals stay in memory; older ones are read from disk on request."""


class JobsInMemory:
    """Jobs with their journals, by id."""

    def __init__(self, store: JobStore, recorder: JobRecorder) -> None:
        self._store = store
        self._recorder = recorder
        self._unended: dict[str, LiveJob] = {}
        self._ended: OrderedDict[str, LiveJob] = OrderedDict()

    def find(self, job_id: str) -> Job | None:
        """The job as it stands now. None: it does not exist (any more)."""
        if found := self._there(job_id):
            return found.job
        job = self._store.get(job_id)
        return self._take_up(job_id).job if isinstance(job, UnreadableRow) else job

    def get(self, job_id: str) -> LiveJob:
        """The job with its journal, from memory or from disk. Raises JOB_NOT_FOUND."""
        return self._there(job_id) or self._take_up(job_id)

    def unended(self, job_id: str) -> LiveJob | None:
        """A job that has not ended. None: it has, or does not exist."""
        return self._unended.get(job_id)

    def all_unended(self) -> list[LiveJob]:
        """Jobs that have not ended, oldest first."""
        return list(self._unended.values())

    def listed(self, row: ListedJob | UnreadableRow) -> ListedJob:
        """A job of a list as it stands now; FAILED if it cannot be read."""
        if live := self._there(row.id if isinstance(row, ListedJob) else row.record.id):
            return as_listed(live.job)
        return row if isinstance(row, ListedJob) else as_listed(self._take_up(row.record.id).job)

    def add(self, live: LiveJob) -> None:
        """Keep a job: until it has ended, and then among the jobs that ended last."""
        if not live.job.state.ended:
            self._unended[live.job.id] = live
            return
        self._unended.pop(live.job.id, None)
        self._ended[live.job.id] = live
        while len(self._ended) > _ENDED_KEPT:
            oldest = next((job_id for job_id in self._ended if not self._recorder.owes(job_id)), None)
            if oldest is None:
                return
            del self._ended[oldest]

    def forget(self, job_id: str) -> None:
        """Drop a deleted job."""
        self._ended.pop(job_id, None)

    def _there(self, job_id: str) -> LiveJob | None:
        return self._unended.get(job_id) or self._ended.get(job_id)

    def _take_up(self, job_id: str) -> LiveJob:
        """Load a job from disk into memory."""
        found = self._store.load(job_id)
        if found is None:
            message = f"there is no job {job_id!r}; it may have been deleted or have expired"
            raise NotFound(message, ErrorReason.JOB_NOT_FOUND, job_id=job_id)
        live = self._recorder.take_up(found)
        self.add(live)
        return live
