"""Turns the reports of one attempt into events of its job, and collects what they contain."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from domains.device.benchmark import BenchmarkReport
from domains.errors import ErrorReason, InternalError
from domains.failure import Failure
from domains.inference.outcome import (
    CheckpointReady,
    ImageReady,
    LatentsReady,
    ModelLoaded,
    ModelPlacing,
    ModelUnloaded,
    RunFailed,
    RunFinished,
    RunStopped,
)
from domains.inference.pass_plan import steps_by_stage
from domains.memory.blobs.store import BlobStore
from domains.model.benchmark import ModelBenchmarkReport
from domains.model.loaded_models import LoadedModels
from domains.processing.attempts.checkpoints import kept
from domains.processing.attempts.pictures import Pictures
from domains.processing.attempts.progress_rate import ProgressRate
from domains.processing.attempts.residency import Residency
from domains.processing.attempts.time_limits import TimeLimits
from domains.processing.jobs.event import Checkpoint, JobResult
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import DeviceWork, GenerateWork
from domains.processing.jobs.kinds.entry import Reported
from domains.processing.jobs.outcome import Broken, Done, Halted
from domains.processing.workers.silence import Watch
from domains.processing.workers.stall_limit import stall_limit
from domains.processing.workers.worker import (
    Benchmarked,
    ModelBenchmarked,
    Order,
    Report,
    Worker,
    WorkerGone,
)
from domains.progress import Degraded, PreviewReady, Progressed, Stage, StageStarted


class Following:
    """Follows the order of a job to a device worker."""

    outcome: Done | Broken | Halted | None = None
    """Outcome of the work; None: the last report has not arrived."""

    def __init__(
        self,
        job: Job,
        work: DeviceWork,
        worker: Worker,
        jobs: Jobs,
        loaded: LoadedModels,
        blobs: BlobStore,
        limits: TimeLimits,
    ) -> None:
        self._worker = worker
        self._job_id = job.id
        self._work = work
        self._jobs = jobs
        self._limits = limits
        total, steps = (
            (len(work.resolved.seeds), steps_by_stage(work.resolved)) if isinstance(work, GenerateWork) else (0, None)
        )
        self._rate = ProgressRate(
            steps=steps, finds=isinstance(work, GenerateWork) and bool(work.resolved.detail_passes)
        )
        self._pictures = Pictures(job.id, total, jobs, blobs)
        self._blobs = blobs
        self._checkpoint: Checkpoint | None = None
        self._residency = Residency(job.id, work, loaded, worker.device.id, job.options.session_id)
        self._benchmark: BenchmarkReport | None = None
        self._model_benchmark: ModelBenchmarkReport | None = None

    async def follow(self, order: Order, stall_limit_s: float, watch: Watch) -> None:
        """Follow the order to its last report, which sets `outcome`. Raises `WorkerGone`, or an error that fails it.

        `watch`: of `Silences.watching`.
        """
        worker = self._worker
        reports: AsyncIterator[Report] = worker.carry_out(order)
        try:
            # By its contract, `carry_out` is an async generator.
            async with aclosing(reports):  # pyright: ignore[reportArgumentType]
                with watch as moved:
                    while (report := await _next(reports, worker, stall_limit_s)) is not None:
                        moved(report)
                        await self._take(report)
        except WorkerGone as gone:
            # The next attempt skips stored pictures, so store all received ones first.
            await self._pictures.settled()
            self._residency.lost(str(gone))
            raise
        finally:
            self._residency.end(self.outcome)

    async def _take(self, report: Report) -> None:
        match report:
            case Progressed():
                self._jobs.record(self._job_id, self._rate.at(report))
            case StageStarted() | PreviewReady() | Degraded():
                if isinstance(report, StageStarted):
                    self._enter(report.stage)
                self._jobs.record(self._job_id, report)
            case LatentsReady():
                self._pictures.take_latents(report)
            case ImageReady():
                self._pictures.take(report)
            case ModelPlacing():
                self._residency.placing(report)
            case CheckpointReady():
                self._checkpoint = await kept(report, self._job_id, self._jobs, self._blobs)
            case ModelLoaded():
                self._limits.loaded()
                self._residency.loaded(report.loaded)
            case ModelUnloaded():
                self._residency.unloaded(report.model_id)
            case Benchmarked():
                self._benchmark = report.report
            case ModelBenchmarked():
                self._model_benchmark = report.report
            case RunFinished() | RunFailed() | RunStopped():
                await self._pictures.stored()
                self.outcome = self._last(report)
            case _:
                raise InternalError(
                    f"the worker of {self._worker.device.id} answered a job with {type(report).__name__}"
                )

    def _enter(self, stage: Stage) -> None:
        """Start the load time limit when loading begins; cancel it when another stage begins."""
        if stage is Stage.LOADING:
            self._residency.begin()
            self._limits.loading()
        else:
            self._limits.loaded()

    def _last(self, report: RunFinished | RunFailed | RunStopped) -> Done | Broken | Halted:
        match report:
            case RunFinished():
                return Done(result=self._work.result(self._reported()), receipt=report.receipt)
            case RunFailed():
                return Broken(
                    failure=self._failure(report),
                    receipt=report.receipt,
                    result=self._partial(),
                    checkpoint=self._checkpoint,
                )
            case RunStopped():
                return Halted(proof=report, checkpoint=self._checkpoint, result=self._partial())

    def _reported(self) -> Reported:
        return Reported(
            images=self._pictures.made,
            loaded=self._residency.model,
            reused=self._residency.reused,
            benchmark=self._benchmark,
            model_benchmark=self._model_benchmark,
            libraries=self._worker.device.libraries,
        )

    def _partial(self) -> JobResult | None:
        return self._work.result(self._reported()) if self._pictures.made else None

    def _failure(self, report: RunFailed) -> Failure:
        reason, facts = ErrorReason(report.reason), dict(report.facts)
        if reason is not ErrorReason.DRIVER_ERROR:
            return Failure(reason=reason, message=report.message, facts=facts)
        # A driver error affects the whole device: its process is ended as soon as the job has left it.
        facts["device_id"] = self._worker.device.id
        return Failure(reason=reason, message=report.message, facts=facts, actions_taken=("worker restarted",))


async def _next(reports: AsyncIterator[Report], worker: Worker, stall_limit_s: float) -> Report | None:
    """The next report; None: there are no more."""
    async with stall_limit(worker, stall_limit_s):
        return await anext(reports, None)
