"""One attempt at a job: its memory, its work, the request to stop it, and its end."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from domains.device.device import Device, DeviceState
from domains.device.devices import Devices
from domains.draining import Draining
from domains.errors import DeviceOpsError, ErrorReason, InternalError
from domains.failure import Failure
from domains.inference.fallback import Fallback
from domains.inference.generation import Previews
from domains.inference.kept_file import KeptFile
from domains.memory.blobs.store import BlobStore
from domains.model.catalogue import Catalogue
from domains.model.execution import AS_USUAL, Execution
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from domains.processing.attempts.following import Following
from domains.processing.attempts.front_task import FrontRunners, FrontTask
from domains.processing.attempts.making_room import Evicting, MakingRoom
from domains.processing.attempts.moving import Elsewhere, moved, nowhere
from domains.processing.attempts.reproductions import Reproductions
from domains.processing.attempts.time_limits import TimeLimits
from domains.processing.attempts.unless_set import unless_set
from domains.processing.inputs.generation_files import GenerationFiles
from domains.processing.jobs.ending import end_of
from domains.processing.jobs.event import Checkpoint, GenerationResult, Started
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import DeviceWork, GenerateWork, UnreadableWork
from domains.processing.jobs.kinds.entry import Supplies
from domains.processing.jobs.outcome import Broken, Done, Halted, Moved, Outcome, WorkerDeath
from domains.processing.jobs.preview_wishes import PreviewWishes
from domains.processing.lanes.lane import Lane
from domains.processing.memory.less_room import LessRoom
from domains.processing.memory.model_use import execution_of
from domains.processing.workers.silence import Silences
from domains.processing.workers.worker import Worker, WorkerGone, WorkerStalled
from domains.stop import Stop, stronger
from domains.system_errors import system_error

_log = structlog.get_logger()


class MemoryForJobs(Evicting, Protocol):
    """The memory that attempts need. `domains.processing.memory.job_admission.JobAdmission` is the real one."""

    def claimed(self, job: Job, device_id: str) -> AbstractAsyncContextManager[LessRoom | None]:
        """Claim, until exit, the memory that the job is known to need on the device. Raises if it cannot be had. Yields how
        the model has room where it has none as a whole; else None."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptTools:
    """Collaborators and limits that all attempts share."""

    jobs: Jobs
    devices: Devices
    catalogue: Catalogue
    loaded: LoadedModels
    blobs: BlobStore
    inputs: GenerationFiles
    reproductions: Reproductions
    memory: MemoryForJobs
    runners: FrontRunners
    wishes: PreviewWishes
    draining: Draining
    silences: Silences
    stall_limit_s: float
    """Longest time without a report of any order from a worker; then the worker counts as hung and is ended."""
    stop_limit_s: float
    """Longest time between a final request to stop and the stop; then the worker is ended."""
    elsewhere: Elsewhere = nowhere
    silent_s: Callable[[Device, DeviceWork], float | None] = lambda device, work: None
    """Estimated time of a step of the work without a sign of life; None: see `StepTimes.silent_s`."""


class Attempt:
    """Runs a job once on a lane. Implements `lane.Running`."""

    def __init__(self, job: Job, lane: Lane, tools: AttemptTools) -> None:
        self.job = job
        self._lane = lane
        self._tools = tools
        self._live = tools.jobs.live(job.id)
        self._stopping = asyncio.Event()
        self._obeying: asyncio.TimerHandle | None = None
        self._following: Following | None = None
        self._limits: TimeLimits | None = None
        self.claims_memory = False
        """Whether it waits for memory; no worker has its order yet."""
        self._less_room: LessRoom | None = None
        """How the model has room. None: as a whole, or the job loads none."""

    def stop(self, stop: Stop) -> None:
        """Ask the attempt to stop at its next safe point. The strongest request decides how the job continues."""
        self._live.stop = stronger(self._live.stop, stop)
        self._stopping.set()
        if self._lane.worker is not None:
            self._lane.worker.stop(self.job.id, stop)
            if stop.final and self._obeying is None:
                limit_s = self._tools.stop_limit_s
                self._obeying = asyncio.get_running_loop().call_later(limit_s, self._disobeyed)

    def allow(self, options: JobOptions) -> None:
        """Apply the time limits of these options from now on."""
        if self._limits is not None:
            self._limits.change(options)

    async def run(self) -> None:
        """Run the attempt to its end and record that end in the job's journal, whatever error occurs."""
        now = self._unended()
        if now is None or (now.state, now.options) != (self.job.state, self.job.options):
            # The job was paused or cancelled, or its options changed, after the queue gave it to this attempt.
            return
        begin_s = time.monotonic()
        try:
            self._tools.jobs.record(self.job.id, Started(device_id=self._lane.device_id, attempt=self.job.attempt + 1))
            _log.info("job started", kind=self.job.kind, attempt=self.job.attempt + 1)
            outcome = await self._work()
        except WorkerGone as gone:
            outcome = await self._after(gone)
        except DeviceOpsError as error:
            outcome = Broken(failure=Failure.of(error))
        except Exception as error:
            outcome = Broken(failure=_failure_of(error))
        finally:
            if self._obeying is not None:
                self._obeying.cancel()
        self._end(self._moved(outcome))
        self._log_end(time.monotonic() - begin_s)

    async def _work(self) -> Outcome:
        limits = self._limits = TimeLimits(self.job.options, self.stop, self.job.ran_s)
        try:
            async with AsyncExitStack() as held:
                memory = self._tools.memory.claimed(self.job, self._lane.device_id)
                self.claims_memory = True
                self._less_room = await unless_set(self._stopping, held.enter_async_context(memory))
                self.claims_memory = False
                if self._stopping.is_set():
                    # No worker has received the order yet.
                    return Halted()
                return await self._carry_out(limits)
        finally:
            limits.close()

    async def _carry_out(self, limits: TimeLimits) -> Outcome:
        work, worker = self.job.work, self._lane.worker
        assert not isinstance(work, UnreadableWork), "a job that cannot be read has failed"
        if isinstance(work, DeviceWork):
            assert worker is not None, "only the lane of a worker takes work for a device"
            return await self._follow(work, worker, limits)
        return await work.begin(self._tools.runners, FrontTask(self.job, self._tools.jobs, self._stopping))

    async def _follow(self, work: DeviceWork, worker: Worker, limits: TimeLimits) -> Outcome:
        """Repeat the order until it ends without a lack of memory, or no more idle models can be unloaded."""
        room = MakingRoom(self.job, self._lane.device_id, self._tools.memory)
        if self._less_room is not None:
            self._tools.jobs.record(self.job.id, room.offload(self._less_room))
        outcome = await self._order(work, worker, limits, room.for_worker(), self.job.checkpoint)
        while isinstance(outcome, Broken) and room.again(outcome) and not self._stopping.is_set():
            if (told := await room.make(outcome)) is not None:
                self._tools.jobs.record(self.job.id, told)
            kept = outcome.checkpoint or self.job.checkpoint
            outcome = await self._order(work, worker, limits, room.for_worker(), kept)
        return room.whole(self._now, outcome)

    def _moved(self, outcome: Outcome) -> Outcome:
        """The outcome; instead of a failure the move to another device, if the job permits it, which is recorded."""
        if not isinstance(outcome, Broken) or self._live.stop is not None:
            return outcome
        found = moved(self._now, self._lane.device_id, outcome, self._tools.elsewhere)
        if isinstance(found, Moved):
            self._tools.jobs.record(self.job.id, found.receipt.degradations[-1])
        return found

    @property
    def _now(self) -> Job:
        """The job as it is now."""
        return self._tools.jobs.find(self.job.id) or self.job

    async def _order(
        self, work: DeviceWork, worker: Worker, limits: TimeLimits, fallback: Fallback, kept: Checkpoint | None
    ) -> Done | Broken | Halted:
        tools = self._tools
        following = Following(self.job, work, worker, tools.jobs, tools.loaded, tools.blobs, limits)
        self._following = following
        async with AsyncExitStack() as held:
            supplies = self._supplies(fallback, kept)
            if isinstance(work, GenerateWork):
                given = tools.inputs.supplied(self.job, work.resolved, supplies)
                found = await unless_set(self._stopping, held.enter_async_context(given))
                if found is None or self._stopping.is_set():
                    return Halted()
                supplies = found
            order = work.order(self.job.id, supplies)
            watch = tools.silences.watching(worker, self.job.id, tools.silent_s(worker.device, work))
            await following.follow(order, tools.stall_limit_s, watch)
        if following.outcome is None:
            raise InternalError(f"the worker of {worker.device.id} ended an order without its last report")
        outcome = following.outcome
        return await tools.reproductions.compared(self._now, outcome) if isinstance(outcome, Done) else outcome

    def _supplies(self, fallback: Fallback, kept: Checkpoint | None) -> Supplies:
        def previews(own: Previews) -> Previews:
            return self._tools.wishes.of(self.job.id, own)

        result = self._now.result
        return Supplies(
            model=lambda model_id: _for_worker(self._tools.catalogue.get(model_id)),
            adapter=lambda model_id: _for_worker(self._tools.catalogue.hashed(self._tools.catalogue.get(model_id))),
            whole=lambda model_id: _for_worker(self._tools.catalogue.hashed_whole(self._tools.catalogue.get(model_id))),
            previews=previews,
            made=len(result.images) if isinstance(result, GenerationResult) else 0,
            kept=self._kept(kept),
            fallback=fallback,
            narrower=self._less_room.execution if self._less_room else self._comes_back(),
        )

    def _comes_back(self) -> Execution | None:
        """How a model that waits in the RAM tier comes back. None: as the work asks for."""
        execution = execution_of(self.job, self._lane.device_id, self._tools.loaded)
        return None if execution == AS_USUAL else execution

    def _kept(self, kept: Checkpoint | None) -> KeptFile | None:
        """The file of a checkpoint, for the worker."""
        if kept is None:
            return None
        path = self._tools.blobs.files.path(kept.sha256)
        return KeptFile(path=str(path), sha256=kept.sha256, branched=bool(self.job.continued_id))

    async def _after(self, gone: WorkerGone) -> Outcome:
        """Wait for the worker's removal. Returns the outcome that its last report gave, else its death."""
        tools, lane = self._tools, self._lane
        if isinstance(gone, WorkerStalled):
            tools.devices.failed(lane.device_id, InternalError(str(gone), ErrorReason.DRIVER_ERROR))
        # Close the lane before the job is queued again: the job must not start on the dead worker.
        lane.closed = True
        # Wait until the device's fault is recorded, because it is the cause of the job's event.
        await lane.left.wait()
        if self._following is not None and self._following.outcome is not None:
            return self._following.outcome
        view = tools.devices.find(lane.device_id)
        return WorkerDeath(
            device_id=lane.device_id,
            message=str(gone),
            meant=lane.meant_to_end or tools.draining.begun,
            lost=view is not None and view.state is DeviceState.LOST,
            alone=self.job.id not in lane.shared,
        )

    def _end(self, outcome: Outcome) -> None:
        """Record the end. The job's memory is free by now: a reader of the event may request it at once."""
        jobs, job = self._tools.jobs, self._unended()
        if job is None:
            return
        try:
            jobs.record(job.id, end_of(job, self._live.stop, outcome, self._live.at(Instant.now())))
        except DeviceOpsError as error:
            # The interruption could not be stored. A failure is published even when it cannot be stored.
            if (job := self._unended()) is not None:
                jobs.record(job.id, end_of(job, None, Broken(failure=Failure.of(error)), self._live.at(Instant.now())))

    def _unended(self) -> Job | None:
        """The job as it is now. None: it has ended, and may have been deleted since."""
        job = self._tools.jobs.find(self.job.id)
        return None if job is None or job.state.ended else job

    def _disobeyed(self) -> None:
        limit_s = self._tools.stop_limit_s
        _log.warning("worker did not obey a request to stop", job_id=self.job.id, device_id=self._lane.device_id)
        self._lane.end_worker(f"job {self.job.id} was asked to stop and had not after {limit_s:g} s")

    def _log_end(self, took_s: float) -> None:
        """Log how the attempt ended, how long it took, and why."""
        job = self._tools.jobs.find(self.job.id)
        state, failure = ("deleted", None) if job is None else (str(job.state), job.failure)
        why = {"reason": str(failure.reason), "message": failure.message} if failure else {}
        _log.info("attempt ended", state=state, took_s=round(took_s, 3), **why)


def _for_worker(model: Model) -> Model:
    """The model without its list of known prompts, which a worker does not need."""
    return msgspec.structs.replace(model, known_prompts=())


def _failure_of(error: Exception) -> Failure:
    """The failure that a caller receives for an error that no other code has handled."""
    if (known := system_error(error)) is not None:
        _log.warning("the system ended a job", problem=str(error) or type(error).__name__)
        return Failure.of(known)
    _log.exception("a bug ended a job")
    message = "a fault of the server ended this job; its log has the details under the job id"
    return Failure(reason=ErrorReason.INVARIANT_BROKEN, message=message)
