"""Advances a set of generations on one device, one unit of work at a time, in turns."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress

import torch
from structlog.contextvars import bound_contextvars

from domains.errors import AlreadyExists, DeviceOpsError, FailedPrecondition
from domains.inference.fallback import OUT_OF_MEMORY
from domains.inference.generation import Previews
from domains.inference.given import Given
from domains.inference.on_device.detailed_run import DetailedRun
from domains.inference.on_device.ending import Ends
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.groups import Group, Turns
from domains.inference.on_device.hardware import Hardware, RealHardware
from domains.inference.on_device.keep_on import keep_on_for
from domains.inference.on_device.ladder import attempt, give_way
from domains.inference.on_device.load_run import LoadRun
from domains.inference.on_device.offloading import Offloading
from domains.inference.on_device.pace import Pace
from domains.inference.on_device.resources import resources_of
from domains.inference.on_device.run import Run
from domains.inference.on_device.shared_step import SharedSteps
from domains.inference.outcome import ModelUnloaded, Report
from domains.model.execution import AS_USUAL, Execution
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel
from domains.stop import Stop, StopKind

_CLOSED = Stop(kind=StopKind.CANCEL, cause="the worker is closed")
_WAIT_S = 0.02
"""Longest wait for a file in one tick, so that new orders are read."""


class StepLoop:
    """See the package's docstring. Used from one thread."""

    def __init__(
        self,
        device: str,
        report: Callable[[str, Report], None],
        *,
        hardware: Hardware | None = None,
        encoders: int = 2,
        stop_of: Callable[[str], Stop | None] = lambda job_id: None,
        device_id: str = "",
    ) -> None:
        """`encoders`: threads that encode image files beside the loop. `hardware` None: a real device.

        `device_id`: the server's name of the device, for the reports of loaded models.
        `stop_of`: returns the pending request to stop a job (id). Also called within a unit of work, if the
        device computes in this thread.
        """
        self.device = torch.device(device)
        self.hardware: Hardware = hardware or RealHardware(self.device)
        self._report = report
        self._stop_of = stop_of
        self.resources = resources_of(self.device, device_id, self.hardware, encoders, self._still_wanted)
        self._models = self.resources.models
        self._at_work: Sequence[Run] = ()
        """Jobs whose unit of work is computed now."""
        pace = Pace()
        self._turns = Turns(pace)
        self._ends = Ends(self._turns, self.device, self.hardware, report)
        self._steps = SharedSteps(
            self.hardware, pace, self._ends.answering, self._keep_on, self._waiting, self._give_way
        )
        self._offloading = Offloading(self._turns, self.resources, self._ends, report)
        self.peak_bytes = 0
        """Most bytes that the allocator has handed out at once, as measured after each tick."""

    def load(self, job_id: str, model: Model, execution: Execution = AS_USUAL) -> None:
        """Add a run that only loads a model. See `submit`."""
        self._add(LoadRun(job_id, model, self.resources, self._teller(job_id), execution))

    def loaded(self, model_id: str) -> OnDeviceModel:
        """A model that is on the device. Raises MODEL_NOT_LOADED."""
        return self._models.loaded(model_id)

    def unload(self, model_id: str) -> int:
        """Drop a model; returns the bytes freed. Raises LOADED_MODEL_NOT_FOUND; ILLEGAL_STATE while a job uses it."""
        return self._unload(model_id, [job for job in self._turns if job.uses(model_id)])

    def _unload(self, model_id: str, users: Sequence[LoadRun]) -> int:
        if users:
            names = ", ".join(job.id for job in users)
            message = f"model {model_id} is in use by {names}; cancel them or wait"
            raise FailedPrecondition(message, model_id=model_id, jobs=names)
        return self.resources.unload(model_id)

    def unload_all(self) -> int:
        """Drop every model that no job uses; returns the bytes freed."""
        unused = [name for name in self._models.ids() if not any(job.uses(name) for job in self._turns)]
        return sum(map(self.unload, unused))

    def job_bytes(self) -> dict[str, int]:
        """Bytes of each running job's tensors, by id."""
        return {job.id: job.held_bytes() for job in self._turns}

    def submit(self, job_id: str, given: Given, previews: Previews | None = None) -> None:
        """Add a generation; a later `tick` runs its first unit. `previews` None: those that it asked for.

        It loads its model if that is not on the device, and replaces one that is there with other weights than
        `given.model` names; it fails with ILLEGAL_STATE if a generation uses those. Raises ALREADY_EXISTS if the id runs.
        """
        kind = DetailedRun if given.resolved.detail_passes else Run
        job = kind(job_id, given, self.resources, self._teller(job_id))
        job.show(given.resolved.previews if previews is None else previews)
        self._add(job)

    def show(self, job_id: str, previews: Previews) -> None:
        """Change a job's previews. Does nothing for a job that has ended."""
        if isinstance(job := self._find(job_id), Run):
            job.show(previews)

    def stop(self, job_id: str, stop: Stop) -> bool:
        """Ask a job to end before its next unit of work; False if there is no such job."""
        job = self._find(job_id)
        if job is not None:
            job.ask_to_stop(stop)
        return job is not None

    def tick(self) -> bool:
        """End cancelled jobs, do one unit of work, report what is finished. True while jobs remain."""
        with torch.inference_mode():
            self._ends.end_stopped()
            if group := self._turns.take():
                self._advance(group)
                self._at_work = ()
            else:
                self._wait()
            for job in list(self._turns):
                with self._ends.answering(job):
                    job.poll()
                    if job.done:
                        self._ends.end_as_asked(job)
            self._models.rest(lambda model_id: any(job.uses(model_id) for job in self._turns))
        self._note_peak()
        return bool(self._turns)

    def close(self) -> None:
        """End every job as RunStopped, stop the encoders, then drop the models."""
        for job in self._turns:
            job.ask_to_stop(_CLOSED)
        self._ends.end_stopped()
        self.resources.files.shutdown(wait=True, cancel_futures=True)
        for model_id in self._models.ids():
            self.unload(model_id)
        self.resources.forget_host_copies()

    def _still_wanted(self) -> None:
        """Show signs of life of the jobs whose unit waits for a disk, on every device, and abandon it if all are to stop."""
        if self._at_work:
            keep_on_for(self._at_work, self._stop_of, pauses=False)()

    def _advance(self, group: Group) -> None:
        if denoising := [job for job in group if isinstance(job, Run) and job.denoising]:
            self._at_work = denoising
            self._steps.do(denoising)
            return
        for job in group:
            with self._ends.answering(job):
                if not job.has_model:
                    self._bring_or_give_way(job)
                if isinstance(job, Run) and job.has_model:
                    self._at_work = (job,)
                    self._compute(job)

    def _bring_or_give_way(self, job: LoadRun) -> None:
        if not isinstance(job, Run):
            self._bring_model(job)
            return
        with attempt(job) as tried:
            self._bring_model(job)
        if tried.shortage is not None:
            self._give_way(job, tried.shortage)

    def _bring_model(self, job: LoadRun) -> None:
        """Load a piece of the job's model; a model that is there with other weights is unloaded first."""
        model = job.next_model
        if self._models.outdated(model):
            others = [other for other in self._turns if other.needs(model.id)]
            if others and not any(isinstance(other, Run) for other in others):
                return  # Loads end soon.
            freed = self._unload(model.id, others)
            self._report(job.id, ModelUnloaded(model_id=model.id, freed_bytes=freed))
        job.bring_model(alone=len(self._turns) == 1)

    def _compute(self, job: Run) -> None:
        """Enqueue the next unit of a generation that is not a denoising step."""
        with attempt(job) as tried:
            if job.trajectory is None:
                job.prepare(self._keep_on((job,), pauses=True))
            else:
                job.decode(self._keep_on((job,), pauses=True))
        if tried.shortage is not None:
            self._give_way(job, tried.shortage)
        self.resources.hold_prompts()
        if job.denoising:
            self._turns.seat(job)

    def _give_way(self, job: Run, shortage: DeviceOpsError) -> None:
        """See `give_way`. A job that fails reports its progress before, to continue from with more room or with less."""
        try:
            with bound_contextvars(job_id=job.id):
                give_way(job, shortage, self._offloading)
        except DeviceOpsError as final:
            if final.reason in OUT_OF_MEMORY:
                with suppress(Exception):
                    if (kept := job.keep()) is not None:
                        self._report(job.id, kept)
            raise

    def _keep_on(self, group: Sequence[Run], *, pauses: bool = False) -> KeepOn:
        """A check that abandons a unit, which may take seconds on a CPU, when all of its jobs are to stop. `pauses`: a
        pause abandons it too; otherwise a pause takes effect at the unit's end, so that no step is computed twice."""
        if self.device.type != "cpu":
            return regardless
        return keep_on_for(group, self._stop_of, pauses=pauses)

    def _waiting(self, group: Sequence[Run]) -> KeepOn:
        """The same for a wait of the thread that ticks. The step after it has not begun, so that a pause ends it, too."""
        return keep_on_for(group, self._stop_of, pauses=True)

    def _wait(self) -> None:
        """Wait until the device or an encoder has finished something, or for a short time: no unit can be enqueued."""
        # Generations first: a load may wait for a disk.
        if any(job.wait_for_device() for job in sorted(self._turns, key=lambda job: not job.has_model)):
            return
        if files := [future for job in self._turns for future in job.waiting_for()]:
            wait(files, timeout=_WAIT_S, return_when=FIRST_COMPLETED)

    def _add(self, job: LoadRun) -> None:
        if self._find(job.id) is not None:
            raise AlreadyExists(f"job {job.id} is running on {self.device}", job_id=job.id)
        self._turns.append(job)

    def _teller(self, job_id: str) -> Callable[[Report], None]:
        return lambda report: self._report(job_id, report)

    def _find(self, job_id: str) -> LoadRun | None:
        return next((job for job in self._turns if job.id == job_id), None)

    def _note_peak(self) -> None:
        """Record the tick's high-water mark for all jobs that ran in it."""
        peak = self.hardware.peak_bytes()
        if peak is None:
            return
        self.peak_bytes = max(self.peak_bytes, peak)
        for job in self._turns:
            job.meter.device_peak(peak)
