"""Advances a set of generations on one device, one unit of work at a time, in turns."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress

import torch
from structlog.contextvars import bound_contextvars

from domains.errors import AlreadyExists, DeviceOpsError, FailedPrecondition
from domains.inference.fallback import NOTHING, OUT_OF_MEMORY, Fallback
from domains.inference.generation import Previews, ResolvedGeneration
from domains.inference.kept_file import KeptFile
from domains.inference.on_device.adapters import AdapterPool
from domains.inference.on_device.ending import failed, finished, stopped
from domains.inference.on_device.family import Abandoned, KeepOn, regardless
from domains.inference.on_device.groups import Group, Turns
from domains.inference.on_device.hardware import Hardware, RealHardware
from domains.inference.on_device.ladder import give_way
from domains.inference.on_device.load_run import LoadRun
from domains.inference.on_device.pace import Pace
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.resident_models import ResidentModels
from domains.inference.on_device.run import Run
from domains.inference.on_device.shared_step import SharedSteps
from domains.inference.outcome import ModelUnloaded, Report
from domains.model.execution import AS_USUAL, Execution
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, translate
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
        self._device_id = device_id
        self._files = ThreadPoolExecutor(encoders, thread_name_prefix="encode")
        self._prompts = PromptCache()
        self._adapters = AdapterPool()
        self._models = ResidentModels(self.device, self.hardware)
        pace = Pace()
        self._turns = Turns(pace)
        self._steps = SharedSteps(self.hardware, pace, self._answering, self._keep_on, self._give_way)
        self.peak_bytes = 0
        """Most bytes that the allocator has handed out at once, as measured after each tick."""

    def load(self, job_id: str, model: Model, execution: Execution = AS_USUAL) -> None:
        """Add a run that only loads a model. See `submit`."""
        self._add(LoadRun(job_id, model, self._models, self._device_id, self._teller(job_id), execution))

    def loaded(self, model_id: str) -> OnDeviceModel:
        """A model that is on the device. Raises MODEL_NOT_LOADED."""
        return self._models.loaded(model_id)

    def unload(self, model_id: str) -> int | None:
        """Drop a model; returns the bytes freed. Raises LOADED_MODEL_NOT_FOUND; ILLEGAL_STATE while a job uses it."""
        return self._unload(model_id, [job for job in self._turns if job.model.id == model_id])

    def _unload(self, model_id: str, users: Sequence[LoadRun]) -> int | None:
        if users:
            names = ", ".join(job.id for job in users)
            message = f"model {model_id} is in use by {names}; cancel them or wait"
            raise FailedPrecondition(message, model_id=model_id, jobs=names)
        self._prompts.forget(model_id)
        self._hold_prompts()
        freed = self._models.unload(model_id)
        self._adapters.keep_models(self._models.contents())
        return freed

    def unload_all(self) -> int:
        """Drop every model that no job uses; returns the bytes freed."""
        used = {job.model.id for job in self._turns}
        return sum(self.unload(model_id) or 0 for model_id in self._models.ids() if model_id not in used)

    def forget_prompts(self) -> None:
        """Drop all cached prompt encodings."""
        self._prompts.clear()
        self._hold_prompts()

    def forget_host_copies(self) -> None:
        """Drop what is kept in host memory: models that have left the device, and adapters."""
        self._adapters.clear()
        if self._models.tier is not None:
            self._models.tier.clear()

    def pinned_bytes(self) -> int:
        """Bytes of host memory that these pin."""
        return 0 if self._models.tier is None else self._models.tier.pinned_bytes

    def model_bytes(self) -> dict[str, int]:
        """Bytes of each loaded model, by id."""
        return self._models.sizes()

    def job_bytes(self) -> dict[str, int]:
        """Bytes of each running job's tensors, by id."""
        return {job.id: job.held_bytes() for job in self._turns}

    def adapter_bytes(self) -> int:
        """Bytes of host memory that the files of adapters take."""
        return self._adapters.held_bytes()

    def prompt_bytes(self) -> int:
        """Bytes of the cached prompt encodings."""
        return self._prompts.held_bytes()

    def shared_bytes(self) -> int:
        """Bytes that are held for jobs that share forwards, beside their own."""
        return self._models.shared_bytes()

    def submit(
        self,
        job_id: str,
        model: Model,
        resolved: ResolvedGeneration,
        previews: Previews | None = None,
        *,
        made: int = 0,
        kept: KeptFile | None = None,
        picture: KeptFile | None = None,
        mask: KeptFile | None = None,
        loras: Sequence[Model] = (),
        words: Sequence[Model] = (),
        fallback: Fallback = NOTHING,
    ) -> None:
        """Add a generation; a later `tick` runs its first unit. `previews` None: those that it asked for. `made`, `kept`,
        `picture`, `mask`, `loras`, `words` and `fallback`: see `Run`.

        It loads its model if that is not on the device, and replaces one that is there with other weights than `model`
        names; it fails with ILLEGAL_STATE if a generation uses those. Raises ALREADY_EXISTS if the id runs.
        """
        job = Run(
            job_id,
            model,
            resolved,
            self._models,
            self._prompts,
            self._files,
            self.hardware,
            self._device_id,
            self._teller(job_id),
            made,
            kept,
            picture,
            mask,
            pool=self._adapters,
            loras=loras,
            words=words,
            fallback=fallback,
        )
        job.show(resolved.previews if previews is None else previews)
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
            self._stop_asked()
            if group := self._turns.take():
                self._advance(group)
            else:
                self._wait()
            for job in list(self._turns):
                with self._answering(job):
                    job.poll()
                    if job.done:
                        self._end_as_asked(job)
        self._note_peak()
        return bool(self._turns)

    def close(self) -> None:
        """End every job as RunStopped, stop the encoders, then drop the models."""
        for job in self._turns:
            job.ask_to_stop(_CLOSED)
        self._stop_asked()
        self._files.shutdown(wait=True, cancel_futures=True)
        for model_id in self._models.ids():
            self.unload(model_id)
        self.forget_host_copies()

    def _advance(self, group: Group) -> None:
        if denoising := [job for job in group if isinstance(job, Run) and job.denoising]:
            self._steps.do(denoising)
            return
        for job in group:
            with self._answering(job):
                if not job.has_model:
                    self._bring_or_give_way(job)
                if isinstance(job, Run) and job.has_model:
                    self._compute(job)

    def _bring_or_give_way(self, job: LoadRun) -> None:
        try:
            self._bring_model(job)
        except Exception as error:
            if not isinstance(job, Run):
                raise
            self._give_way(job, error)

    def _bring_model(self, job: LoadRun) -> None:
        """Load a piece of the job's model; a model that is there with other weights is unloaded first."""
        if self._models.outdated(job.model):
            others = [other for other in self._turns if other.model.id == job.model.id and other.needs_model]
            if others and not any(isinstance(other, Run) for other in others):
                return  # Loads end soon.
            freed = self._unload(job.model.id, others)
            self._report(job.id, ModelUnloaded(model_id=job.model.id, freed_bytes=freed))
        job.bring_model(alone=len(self._turns) == 1)

    def _compute(self, job: Run) -> None:
        """Enqueue the next unit of a generation that is not a denoising step."""
        try:
            if job.trajectory is None:
                job.prepare(self._keep_on((job,), pauses=True))
            else:
                job.decode(self._keep_on((job,), pauses=True))
        except Abandoned:
            raise
        except Exception as error:
            self._give_way(job, error)
        self._hold_prompts()
        if job.denoising:
            self._turns.seat(job)

    def _give_way(self, job: Run, error: Exception) -> None:
        """See `give_way`. A job that fails reports its progress before, to continue from with more room or with less."""
        try:
            with bound_contextvars(job_id=job.id):
                give_way(job, error)
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

        def keep_on() -> None:
            for job in group:
                job.show_life()
            stops: list[Stop] = []
            for job in group:
                stop = self._stop_of(job.id)
                if stop is None or (stop.kind is StopKind.PAUSE and not pauses):
                    return
                stops.append(stop)
            for job, stop in zip(group, stops, strict=True):
                job.ask_to_stop(stop)
            raise Abandoned

        return keep_on

    def _hold_prompts(self) -> None:
        self.hardware.hold("prompts", self._prompts.held_bytes())

    def _wait(self) -> None:
        """Wait until the device or an encoder has finished something, or for a short time: no unit can be enqueued."""
        # Generations first: a load may wait for a disk.
        if any(job.wait_for_device() for job in sorted(self._turns, key=lambda job: not job.has_model)):
            return
        if files := [future for job in self._turns for future in job.waiting_for()]:
            wait(files, timeout=_WAIT_S, return_when=FIRST_COMPLETED)

    @contextmanager
    def _answering(self, *jobs: LoadRun) -> Generator[None]:
        """Turns an error into the end of those of the jobs that still run, here only."""
        try:
            yield
        except Abandoned:
            return  # Cancelled jobs end in the next tick.
        except Exception as error:
            for job in [job for job in jobs if job in self._turns]:
                with bound_contextvars(job_id=job.id):
                    told = translate(error, self.device, str(job.stage))
                self._end(job, lambda job, told=told: failed(job, told))

    def _stop_asked(self) -> None:
        for job in [job for job in self._turns if job.stop is not None and (job.stop.final or job.pausable)]:
            self._end_as_asked(job)

    def _end_as_asked(self, job: LoadRun) -> None:
        """End a job: finished, or stopped if it was asked to stop. A job that continues later reports its progress."""
        stop = job.stop
        if stop is None or (job.done and not stop.final):
            self._end(job, finished)
            return
        if not stop.final:
            with self._answering(job):
                if (kept := job.keep()) is not None:
                    self._report(job.id, kept)
        if job in self._turns:
            self._end(job, lambda job: stopped(job, stop))

    def _end(self, job: LoadRun, last: Callable[[LoadRun], Report]) -> None:
        """Remove a job and send its last report."""
        self._turns.remove(job)
        report = last(job)
        self.hardware.after_job(job.id)
        self._report(job.id, report)

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
