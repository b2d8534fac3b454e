"""Takes jobs from the queue to the lanes, and what becomes of each attempt to the books of jobs and devices."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Protocol

import structlog

from domains.device.device import DeviceState
from domains.device.devices import Devices
from domains.device.status import Workload
from domains.device.workload import WorkloadMeter
from domains.errors import DeviceOpsError, ErrorReason, InternalError
from domains.failure import Failure
from domains.processing.claims import Claims
from domains.processing.crash import WorkerDeath, after_death
from domains.processing.job import GenerateWork, Job
from domains.processing.job_event import Cancelled, Failed, Interrupted, Started
from domains.processing.job_queue import JobQueue
from domains.processing.job_run import End, JobRun, RunTools
from domains.processing.job_state import JobState
from domains.processing.jobs import Jobs
from domains.processing.lane import Lane, needs_all
from domains.processing.lanes import Lanes
from domains.processing.live_job import empty_receipt
from domains.processing.worker import WorkerGone, WorkerStalled
from domains.stop import Stop, StopKind

_ANSWER_FIRST_S = 0.002
"""A new job starts this much later, so that whoever submitted it has its first event before a CPU worker takes the cores."""

_log = structlog.get_logger()


def _never(device_id: str, *, occupied: bool) -> bool:
    return False


class HeldBack(Protocol):
    """`domains.processing.hold_back.HoldBack`."""

    def __call__(self, device_id: str, *, occupied: bool) -> bool: ...


class Dispatcher:
    """Runs queued jobs. `Jobs` tells it of every change; it never polls."""

    def __init__(self, jobs: Jobs, queue: JobQueue, tools: RunTools, devices: Devices) -> None:
        self._jobs = jobs
        self._queue = queue
        self._tools = tools
        self._devices = devices
        self.lanes = Lanes(devices)
        self.lanes.on_room = self.pump
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self.claims = Claims()
        self._excused: set[str] = set()
        """Jobs whose worker is about to be ended on purpose."""
        self.meter = WorkloadMeter()
        self.held_back: HeldBack = _never
        """Whether a device is to start no more for now: its memory is nearly full, or being freed."""
        self._taking = True
        self.wishes = tools.wishes
        self.wishes.on_change = self._show
        jobs.listeners.append(self._changed)

    def workload(self, device_id: str) -> Workload:
        """What a device has to do, and how fast it does it."""
        lane = self.lanes.of(device_id)
        queued = self._queue.count(lambda placement: self.lanes.fits(lane, placement)) if lane else 0
        return self.meter.workload(device_id, queued, lane.capacity if lane else 1)

    def waiting_for(self, accepts: Callable[[str], bool]) -> list[Job]:
        """Jobs that wait and can run on no device but those that are accepted, by id."""

        def accepted(lane: Lane) -> bool:
            return lane.worker is not None and accepts(lane.device_id)

        return self._queue.waiting(lambda placement: not self.lanes.has_other(placement, besides=accepted))

    def stranded_without(self, device_id: str) -> tuple[str, ...]:
        """Ids of the jobs that wait and that no other device will take."""

        def useless(lane: Lane) -> bool:
            return lane.device_id == device_id or not self.lanes.takes_work(lane)

        stranded = self._queue.waiting(lambda placement: not self.lanes.has_other(placement, besides=useless))
        return tuple(job.id for job in stranded)

    def stop_taking(self) -> None:
        """Start no more jobs; those that wait stay queued, on disk."""
        self._taking = False

    def leave_front_work(self) -> None:
        """Break off what the front does by itself: it goes on after the next start, from its journal."""
        front = self.lanes.front_job_ids()
        for task in self._tasks:
            if task.get_name() in front:
                task.cancel()

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _changed(self, job: Job) -> None:
        match job.state:
            case JobState.QUEUED | JobState.INTERRUPTED:
                self._queue.add(job)
                self._set_deadline(job)
                asyncio.get_running_loop().call_later(_ANSWER_FIRST_S, self.pump)
            case JobState.CANCELLING:
                self._stop(job.id, Stop(kind=StopKind.CANCEL, cause=self._jobs.live(job.id).cancel_cause))
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
        job = self._jobs.get(job_id)
        self._jobs.record(job_id, Failed(failure=failure, receipt=empty_receipt(job), result=job.result))

    def _stop(self, job_id: str, stop: Stop) -> None:
        lane = self.lanes.with_job(job_id)
        # No worker has heard of a job that still waits for its memory.
        if not self.claims.abandon(job_id) and lane is not None and lane.worker is not None:
            lane.worker.stop(job_id, stop)

    def _show(self, job_id: str) -> None:
        """Tell the worker of a running generation which previews are wanted now; the order of a later one says it."""
        lane = self.lanes.with_job(job_id)
        if lane is None or lane.worker is None:
            return
        work = lane.running[job_id].work
        if isinstance(work, GenerateWork):
            lane.worker.show(job_id, self.wishes.of(job_id, work.resolved.previews))

    def pump_soon(self) -> None:
        """Start what can start, once whoever tells of a change has told it to all."""
        asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        """Start what can start."""
        for lane in self.lanes.best_first():
            lane.grant_turns()
            while self._taking and lane.room and not lane.turns and (job := self._next_for(lane)):
                self._start(job, lane)

    def _next_for(self, lane: Lane) -> Job | None:
        if not self.lanes.takes_work(lane):
            return None
        if self.held_back(lane.device_id, occupied=bool(lane.occupied)):
            return None
        job = self._queue.next(lambda placement: self.lanes.fits(lane, placement))
        # One that needs the device alone is next: nobody overtakes it until the device is free.
        return None if job is None or (needs_all(job) and lane.occupied) else job

    def _start(self, job: Job, lane: Lane) -> None:
        self._queue.take(job)
        lane.begin(job)
        self._clear_deadline(job.id)
        task = asyncio.get_running_loop().create_task(self._run(job, lane), name=job.id)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._devices.running(lane.device_id, len(lane.running))

    async def _run(self, job: Job, lane: Lane) -> None:
        """One attempt. Whatever happens, the journal gets a word of it."""
        # Of this task alone: whatever is logged on the job's way has its id.
        structlog.contextvars.bind_contextvars(job_id=job.id, device_id=lane.device_id)
        try:
            self._jobs.record(job.id, Started(device_id=lane.device_id, attempt=job.attempt + 1))
            _log.info("job started", kind=job.kind, attempt=job.attempt + 1)
            self.meter.started(lane.device_id, job.id)
            await self._attempt(job, lane)
        except DeviceOpsError as error:
            self._fail(job.id, Failure.of(error))
        except Exception:
            _log.exception("a bug ended a job")
            message = "a fault of the server ended this job; its log has the details under the job id"
            self._fail(job.id, Failure(reason=ErrorReason.INVARIANT_BROKEN, message=message))
        finally:
            lane.leave(job.id)
            _log.info("job left its device")
            self._left(job.id, lane)
            self.pump()

    def _left(self, job_id: str, lane: Lane) -> None:
        """What the end of an attempt says of the device."""
        device_id = lane.device_id
        self._tools.interrupting.pop(job_id, None)
        self._excused.discard(job_id)
        if not device_id:
            return
        self._devices.running(device_id, len(lane.running))
        job = self._jobs.find(job_id)
        failure = job.failure if job else None
        if job is not None and not job.state.ended:
            self.meter.left(device_id, job_id)
        else:
            self.meter.ended(device_id, job_id, failed=failure is not None)
        if failure is not None and failure.reason is ErrorReason.DRIVER_ERROR:
            # A driver error may poison its process for good: only a new one is trusted.
            self._devices.failed(device_id, InternalError(failure.message, failure.reason))
            lane.end_worker(f"its driver failed: {failure.message}")
        elif job is not None and job.state is JobState.SUCCEEDED:
            self._devices.succeeded(device_id)

    async def _attempt(self, job: Job, lane: Lane) -> None:
        run = JobRun(job, self._jobs, self._tools)
        try:
            async with AsyncExitStack() as held:
                await self.claims.take(job, lane.device_id, held)
                # Whoever wanted it to stop meanwhile could not tell a worker.
                run.end = self._end_before_work(job.id)
                if run.end is None:
                    await run.run(lane.worker)
        except WorkerGone as gone:
            if isinstance(gone, WorkerStalled):
                self._devices.failed(lane.device_id, InternalError(str(gone), ErrorReason.DRIVER_ERROR))
            # Before the job waits again: it must not be given to the same dead worker.
            lane.closed = True
            # And the device's fault first, which is the cause of what becomes of the job.
            await lane.left.wait()
            if run.end is None:
                self._interrupted(job.id, str(gone), lane)
        # Now that its memory is free: whoever hears of the end may ask for it at once.
        if run.end is not None:
            self._ended(job.id, run.end)

    def _ended(self, job_id: str, end: End) -> None:
        if (job := self._unended(job_id)) is None:
            return
        if isinstance(end, Interrupted) and job.state is JobState.CANCELLING:
            # Somebody wanted it to stop for good while it left the device.
            end = self._tools.cancelled_at_rest(self._jobs.live(job_id))
        self._jobs.record(job_id, end)

    def _end_before_work(self, job_id: str) -> Cancelled | Interrupted | None:
        """What becomes of a job that is to stop before a worker has heard of it. None: it is not to."""
        live, interruption = self._jobs.live(job_id), self._tools.interrupting.pop(job_id, None)
        if live.job.state is JobState.CANCELLING:
            return self._tools.cancelled_at_rest(live)
        return interruption

    def _interrupted(self, job_id: str, message: str, lane: Lane) -> None:
        job = self._unended(job_id)
        if job is None:
            return
        if job.state is JobState.CANCELLING:
            # It was to stop, and it has: its process is gone.
            self._jobs.record(job_id, self._tools.cancelled_at_rest(self._jobs.live(job_id)))
            return
        view = self._devices.find(lane.device_id)
        death = WorkerDeath(
            device_id=lane.device_id,
            message=message,
            meant=lane.meant_to_end or job_id in self._excused or not self._taking,
            lost=view is not None and view.state is DeviceState.LOST,
            alone=job_id not in lane.shared,
        )
        self._jobs.record(job_id, after_death(job, death))

    async def interrupt(self, job_id: str, reason: ErrorReason, message: str) -> None:
        """Take a running job off its device at its next safe point; it waits again, and nothing counts against it."""
        lane = self.lanes.with_job(job_id)
        if lane is None or lane.worker is None:
            return
        self._tools.interrupting[job_id] = Interrupted(reason=reason, message=message)
        self._stop(job_id, Stop(kind=StopKind.PREEMPT, cause=message, reason=reason))
        attempt = lane.running[job_id]
        # The next one may begin at once.
        while lane.running.get(job_id) is attempt:
            await lane.changed.wait()

    def excuse(self, job_id: str) -> None:
        """Its worker is about to be ended on purpose, which does not count against the job."""
        self._excused.add(job_id)

    def _fail(self, job_id: str, failure: Failure) -> None:
        if job := self._unended(job_id):
            self._jobs.record(job_id, Failed(failure=failure, receipt=empty_receipt(job), result=job.result))

    def _unended(self, job_id: str) -> Job | None:
        """None: it has ended, and may have been deleted since."""
        job = self._jobs.find(job_id)
        return None if job is None or job.state.ended else job
