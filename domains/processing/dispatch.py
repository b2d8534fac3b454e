"""Takes jobs from the queue to the devices, and what the devices tell back into the journals.

A *lane* is a place where jobs run: one for each device worker, and one for work of the front process (scans).
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from domains.errors import DeviceOpsError, ErrorReason
from domains.processing.job import Job, ScanWork
from domains.processing.job_event import Failed, Failure, Interrupted, Started
from domains.processing.job_queue import JobQueue
from domains.processing.job_run import JobRun, RunTools
from domains.processing.job_state import JobState
from domains.processing.jobs import Jobs
from domains.processing.live_job import empty_receipt
from domains.processing.worker import Worker, WorkerGone

MAX_ATTEMPTS = 3
"""A job that takes its worker down this often ends FAILED: it is probably the cause."""

_ANSWER_FIRST_S = 0.002
"""A new job starts this much later, so that whoever submitted it has its first event before a CPU worker takes the cores."""

_log = structlog.get_logger()


class Lane:
    """A place where jobs run."""

    def __init__(self, worker: Worker | None, capacity: int) -> None:
        self.worker = worker
        """None: the front process itself."""
        self.capacity = capacity
        self.running: dict[str, Job] = {}
        self.closed = False
        """Its worker is gone; it takes nothing more."""

    @property
    def device_id(self) -> str:
        """Empty for the front process."""
        return self.worker.device.id if self.worker else ""

    def fits(self, job: Job) -> bool:
        """Whether this lane may run the job."""
        if self.closed:
            return False
        if self.worker is None or isinstance(job.work, ScanWork):
            return self.worker is None and isinstance(job.work, ScanWork)
        device = self.worker.device
        return not job.options.device_ids or bool({device.id, *device.aliases} & set(job.options.device_ids))


class Dispatcher:
    """Runs queued jobs. `Jobs` tells it of every change; it never polls."""

    def __init__(self, jobs: Jobs, queue: JobQueue, tools: RunTools) -> None:
        self._jobs = jobs
        self._queue = queue
        self._tools = tools
        self._lanes: list[Lane] = [Lane(None, capacity=1)]
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self.on_load: Callable[[Lane], None] = lambda lane: None
        """Called when a lane runs more or fewer jobs."""
        self._taking = True
        jobs.on_change = self._changed

    def add_lane(self, lane: Lane) -> None:
        """A worker is ready."""
        self._lanes.append(lane)
        self._pump()

    def remove_lane(self, lane: Lane) -> None:
        """A worker is gone. Its jobs hear of it from their own orders."""
        self._lanes.remove(lane)

    def stop_taking(self) -> None:
        """Start no more jobs; those that wait stay queued, on disk."""
        self._taking = False

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def running(self) -> int:
        """How many jobs run."""
        return sum(len(lane.running) for lane in self._lanes)

    def _changed(self, job: Job) -> None:
        match job.state:
            case JobState.QUEUED | JobState.INTERRUPTED:
                self._queue.add(job)
                self._set_deadline(job)
                asyncio.get_running_loop().call_later(_ANSWER_FIRST_S, self._pump)
            case JobState.CANCELLING:
                self._stop(job.id)
            case _ if job.state.ended:
                self._queue.drop(job.id)
                self._clear_deadline(job.id)
            case _:
                pass

    def _set_deadline(self, job: Job) -> None:
        limit = job.options.queue_timeout_s
        if limit is not None and job.id not in self._deadlines and job.attempt == 0:
            loop = asyncio.get_running_loop()
            # A restart of the server gives it no new time.
            left = max(0.0, job.create_time_s + limit - time.time())
            self._deadlines[job.id] = loop.call_later(left, self._queue_timeout, job.id, limit)

    def _clear_deadline(self, job_id: str) -> None:
        if handle := self._deadlines.pop(job_id, None):
            handle.cancel()

    def _queue_timeout(self, job_id: str, limit: float) -> None:
        message = f"waited longer than its queue_timeout of {limit:g} s; give it more time, or a higher priority"
        failure = Failure(reason=ErrorReason.QUEUE_TIMEOUT, message=message, facts={"queue_timeout_s": f"{limit:g}"})
        self._jobs.record(job_id, Failed(failure=failure, receipt=empty_receipt(self._jobs.get(job_id))))

    def _stop(self, job_id: str) -> None:
        for lane in self._lanes:
            if job_id in lane.running and lane.worker:
                lane.worker.stop(job_id)

    def _pump(self) -> None:
        """Start what can start."""
        for lane in self._lanes:
            while self._taking and len(lane.running) < lane.capacity and (job := self._queue.take(lane.fits)):
                lane.running[job.id] = job
                self._clear_deadline(job.id)
                task = asyncio.get_running_loop().create_task(self._run(job, lane), name=job.id)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                self.on_load(lane)

    async def _run(self, job: Job, lane: Lane) -> None:
        """One attempt. Whatever happens, the journal gets a word of it."""
        log = _log.bind(job_id=job.id, device_id=lane.device_id)
        try:
            self._jobs.record(job.id, Started(device_id=lane.device_id, attempt=job.attempt + 1))
            log.info("job started", kind=job.kind, attempt=job.attempt + 1)
            await self._attempt(job, lane)
        except DeviceOpsError as error:
            self._fail(job.id, Failure.of(error))
        except Exception:
            log.exception("a bug ended a job")
            message = "a fault of the server ended this job; its log has the details under the job id"
            self._fail(job.id, Failure(reason=ErrorReason.INVARIANT_BROKEN, message=message))
        finally:
            del lane.running[job.id]
            log.info("job left its device")
            self.on_load(lane)
            self._pump()

    async def _attempt(self, job: Job, lane: Lane) -> None:
        try:
            await JobRun(job, self._jobs, self._tools).run(lane.worker)
        except WorkerGone as gone:
            # Before the job waits again: it must not be given to the same dead worker.
            lane.closed = True
            self._interrupted(job.id, str(gone))

    def _interrupted(self, job_id: str, message: str) -> None:
        job = self._unended(job_id)
        if job is None:
            return
        if job.state is JobState.CANCELLING:
            # It was to stop, and it has: its process is gone.
            self._jobs.record(job_id, self._tools.cancelled_by_death(self._jobs.live(job_id)))
        elif job.attempt >= MAX_ATTEMPTS:
            text = f"its worker process died {job.attempt} times while running this job: {message}"
            facts = {"attempts": str(job.attempt)}
            self._fail(job_id, Failure(reason=ErrorReason.DEVICE_LOST, message=text, facts=facts))
        else:
            self._jobs.record(job_id, Interrupted(reason=ErrorReason.WORKER_RESTARTING, message=message))

    def _fail(self, job_id: str, failure: Failure) -> None:
        if job := self._unended(job_id):
            self._jobs.record(job_id, Failed(failure=failure, receipt=empty_receipt(job)))

    def _unended(self, job_id: str) -> Job | None:
        """None: it has ended, and may have been deleted since."""
        return next((job for job in self._jobs.unfinished() if job.id == job_id), None)
