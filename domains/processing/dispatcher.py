"""Starts queued jobs on lanes, and tells the devices how the attempts ended."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from domains.device.workload import WorkloadMeter
from domains.errors import ErrorReason, InternalError
from domains.processing.attempts.attempt import Attempt, AttemptTools
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import GenerateWork
from domains.processing.jobs.state import JobState
from domains.processing.lanes.lane import Lane, needs_all
from domains.processing.lanes.lanes import Lanes
from domains.processing.lanes.queue import JobQueue
from domains.processing.lanes.room_signal import RoomSignal
from domains.processing.memory.company import any_company

_ANSWER_FIRST_S = 0.002
"""Delay before a new job starts: its caller gets the first event before a CPU worker takes the cores."""


class HeldBack(Protocol):
    """Implemented by `domains.processing.memory.hold_back.HoldBack`."""

    def __call__(self, device_id: str, *, occupied: bool) -> bool:
        """Whether the device starts no job now: its memory is nearly full or being freed."""
        ...


class Dispatcher:
    """Starts queued jobs. Listens to every change and never polls."""

    def __init__(
        self,
        queue: JobQueue,
        lanes: Lanes,
        room: RoomSignal,
        meter: WorkloadMeter,
        held_back: HeldBack,
        tools: AttemptTools,
        beside: Callable[[Job, Lane], bool] = any_company,
    ) -> None:
        """`beside`: whether a job may run beside those that run on a lane; else it waits until one of them has ended."""
        self._queue = queue
        self._lanes = lanes
        self._meter = meter
        self._held_back = held_back
        self._beside = beside
        self._tools = tools
        self._jobs = tools.jobs
        self._devices = tools.devices
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        room.listeners.append(self.pump)
        tools.wishes.listeners.append(self._show)
        tools.jobs.listeners.append(self._changed)
        tools.jobs.on_options.append(self._options_changed)

    def leave_front_work(self) -> None:
        """Cancel the front's own work at a shutdown; the next start runs it again from its journal."""
        front = self._lanes.front_job_ids()
        for task in self._tasks:
            if task.get_name() in front:
                task.cancel()

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def pump(self) -> None:
        """Start what can start. While the server drains, queued jobs stay queued, on disk."""
        for lane in self._lanes.best_first():
            lane.grant_turns()
            while not self._tools.draining.begun and lane.room and not lane.turns and (job := self._next_for(lane)):
                self._start(job, lane)

    def _changed(self, job: Job) -> None:
        match job.state:
            case JobState.QUEUED | JobState.INTERRUPTED:
                self._queue.add(job)
                self._set_deadline(job)
                asyncio.get_running_loop().call_later(_ANSWER_FIRST_S, self.pump)
            case JobState.CANCELLING | JobState.PAUSING:
                self._stop(job.id)
            case _ if job.state.ended or job.state is JobState.PAUSED:
                self._queue.drop(job.id)
                self._clear_deadline(job.id)
            case _:
                pass

    def _options_changed(self, job: Job) -> None:
        """Queue a waiting job by its new priority, or apply the new time limits to its running attempt."""
        if job.state in (JobState.QUEUED, JobState.INTERRUPTED):
            self._clear_deadline(job.id)
            self._changed(job)
        elif (lane := self._lanes.with_job(job.id)) is not None:
            lane.running[job.id].allow(job.options)

    def _set_deadline(self, job: Job) -> None:
        limit = job.options.queue_timeout_s
        if limit is not None and job.id not in self._deadlines and job.attempt == 0:
            loop = asyncio.get_running_loop()
            # The limit counts from the job's creation, also across a restart of the server; pauses do not count.
            left = max(0.0, limit + job.waiting_paused_s - self._jobs.age_s(job))
            self._deadlines[job.id] = loop.call_later(left, self._jobs.waited_too_long, job.id, limit)

    def _clear_deadline(self, job_id: str) -> None:
        if handle := self._deadlines.pop(job_id, None):
            handle.cancel()

    def _stop(self, job_id: str) -> None:
        """Pass a caller's request to stop to the running attempt."""
        lane, stop = self._lanes.with_job(job_id), self._jobs.live(job_id).stop
        if lane is not None and stop is not None:
            lane.running[job_id].stop(stop)

    def _show(self, job_id: str) -> None:
        """Send the previews wanted now to the worker of a running generation. A later order carries them itself."""
        lane = self._lanes.with_job(job_id)
        if lane is None or lane.worker is None:
            return
        work = lane.running[job_id].job.work
        if isinstance(work, GenerateWork):
            lane.worker.show(job_id, self._tools.wishes.of(job_id, work.resolved.previews))

    def _next_for(self, lane: Lane) -> Job | None:
        if not self._lanes.takes_work(lane):
            return None
        if self._held_back(lane.device_id, occupied=bool(lane.occupied)):
            return None
        job = self._queue.next(lambda placement: self._lanes.fits(lane, placement))
        if job is None or lane.leaving_for(job):
            return None
        if not lane.occupied:
            return job
        # The next job needs the device alone, or more of its memory: no other job overtakes it until the device is free.
        return None if needs_all(job) or not self._beside(job, lane) else job

    def _start(self, job: Job, lane: Lane) -> None:
        self._queue.take(job)
        attempt = Attempt(job, lane, self._tools)
        lane.begin(attempt)
        self._clear_deadline(job.id)
        task = asyncio.get_running_loop().create_task(self._run(attempt, lane), name=job.id)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._devices.running(lane.device_id, len(lane.running))

    async def _run(self, attempt: Attempt, lane: Lane) -> None:
        _name_in_log(attempt.job, lane)
        self._meter.started(lane.device_id, attempt.job.id)
        begin_s = time.monotonic()
        try:
            await attempt.run()
        finally:
            lane.leave(attempt.job.id)
            self._queue.left(attempt.job.id, time.monotonic() - begin_s)
            self._left(attempt.job.id, lane)
            self.pump()

    def _left(self, job_id: str, lane: Lane) -> None:
        """Tell the device how the attempt ended."""
        device_id = lane.device_id
        if not device_id:
            return
        self._devices.running(device_id, len(lane.running))
        job = self._jobs.find(job_id)
        failure = job.failure if job else None
        if job is not None and not job.state.ended:
            self._meter.left(device_id, job_id)
        else:
            self._meter.ended(device_id, job_id, failed=failure is not None)
        if failure is not None and failure.reason is ErrorReason.DRIVER_ERROR:
            # A driver error can corrupt the process: only a new process is trusted.
            self._devices.failed(device_id, InternalError(failure.message, failure.reason))
            lane.end_worker(f"its driver failed: {failure.message}")
        elif job is not None and job.state is JobState.SUCCEEDED:
            self._devices.succeeded(device_id)


def _name_in_log(job: Job, lane: Lane) -> None:
    """Name the job and its device in every log line of this task. A device that another task has bound is removed."""
    structlog.contextvars.unbind_contextvars("device_id")
    structlog.contextvars.bind_contextvars(job_id=job.id)
    if device_id := lane.device_id or job.work.subject_device_id:
        structlog.contextvars.bind_contextvars(device_id=device_id)
