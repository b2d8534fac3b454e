"""One attempt at a job: sends the order, turns each report into events, knows the end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing

import msgspec

from domains.device.benchmark import BenchmarkReport, relative_speed, step_s
from domains.device.devices import Devices
from domains.device.record import DeviceFigures
from domains.errors import ErrorReason
from domains.failure import Failure
from domains.inference.outcome import Failed as WorkFailed
from domains.inference.outcome import Finished, ImageReady, Stopped
from domains.memory.blobs.store import BlobStore
from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModel, LoadedModels
from domains.model.model import Model
from domains.processing.job import BenchmarkWork, GenerateWork, Job, LoadWork
from domains.processing.job_event import (
    BenchmarkResult,
    Cancelled,
    Failed,
    GenerationResult,
    Interrupted,
    JobReceipt,
    JobResult,
    LoadResult,
    Succeeded,
)
from domains.processing.job_pictures import JobPictures
from domains.processing.job_state import JobState
from domains.processing.jobs import Jobs
from domains.processing.live_job import LiveJob, empty_receipt
from domains.processing.pace import Pace
from domains.processing.patience import patience
from domains.processing.preview_wishes import PreviewWishes
from domains.processing.time_limits import TimeLimits
from domains.processing.worker import (
    Benchmarked,
    BenchmarkOrder,
    GenerateOrder,
    LoadOrder,
    ModelLoaded,
    ModelUnloaded,
    Order,
    Report,
    Worker,
    WorkerGone,
)
from domains.progress import Degraded, PreviewReady, Progressed, Receipt, Stage, StageStarted
from domains.stop import Stop, StopKind

_LAST_WORD_S = 10.0
"""How long a worker may take to stop a job whose time is up; its last word has the receipt."""

End = Succeeded | Failed | Cancelled | Interrupted
"""What ends an attempt."""

FrontWork = dict[type, Callable[[Job], Coroutine[None, None, None]]]


class RunTools:
    """What every attempt needs."""

    def __init__(
        self, catalogue: Catalogue, loaded: LoadedModels, blobs: BlobStore, devices: Devices, stall_timeout_s: float
    ) -> None:
        self.catalogue = catalogue
        self.loaded = loaded
        self.blobs = blobs
        self.devices = devices
        self.stall_timeout_s = stall_timeout_s
        self.interrupting: dict[str, Interrupted] = {}
        """Jobs that were asked to stop, to go on later."""
        self.wishes = PreviewWishes()
        """What those who watch jobs want to see of them."""
        self.front_work: FrontWork = {}
        """What the front process does by itself, by the kind of work."""

    @staticmethod
    def cancelled_at_rest(live: LiveJob) -> Cancelled:
        """The proof for a job that was to stop and of which no worker has anything: none had yet, or its process died."""
        job, receipt = live.job, empty_receipt(live.job)
        latency = time.monotonic() - live.cancel_time_s if live.cancel_time_s else 0.0
        return Cancelled(
            stage=job.stage, latency_s=latency, cause=live.cancel_cause, receipt=receipt, result=job.result
        )


class JobRun:
    """One attempt."""

    end: End | None = None
    """What became of the job, for whoever gave it its memory to tell: after that is free again."""

    def __init__(self, job: Job, jobs: Jobs, tools: RunTools) -> None:
        self._job = job
        self._jobs = jobs
        self._tools = tools
        self._pace = Pace()
        self._pictures = JobPictures(job, jobs, tools.blobs)
        self._loaded: LoadedModel | None = None
        self._libraries: tuple[str, ...] = ()
        self._benchmark: BenchmarkReport | None = None
        self._limits: TimeLimits | None = None

    async def run(self, worker: Worker | None) -> None:
        """Carry out the job's work to its end. Raises `WorkerGone`, or an error that is the job's failure.

        The front's own work tells its end by itself.
        """
        if worker is None:
            await self._tools.front_work[type(self._job.work)](self._job)
            return
        self._libraries = worker.device.libraries
        try:
            await self._follow_in_time(worker)
        except WorkerGone:
            # The pictures that it sent are kept before the next attempt looks for them.
            await self._pictures.settled()
            raise

    async def _follow_in_time(self, worker: Worker) -> None:
        """Follow the work; when its time is up, ask the worker to stop it: its last word tells what was spent."""
        loop, waiting = asyncio.get_running_loop(), asyncio.timeout(None)

        def stop() -> None:
            over = Failure.of(limits.over) if limits.over else None
            assert over is not None, "the limits call it with the one that is over"
            stop = Stop(kind=StopKind.TIME_UP, cause=over.message, reason=over.reason, facts=dict(over.facts))
            worker.stop(self._job.id, stop)
            waiting.reschedule(loop.time() + _LAST_WORD_S)

        limits = self._limits = TimeLimits(self._job.options, stop)
        try:
            async with waiting:
                await self._follow(worker, self._order())
        except TimeoutError:
            if limits.over is None:
                raise
            if self.end is None:
                await self._pictures.stored()
                raise limits.over from None
        finally:
            limits.close()

    def _order(self) -> Order:
        work = self._job.work
        match work:
            case GenerateWork():
                model = self._tools.catalogue.get(work.resolved.model_id)
                previews = self._tools.wishes.of(self._job.id, work.resolved.previews)
                return GenerateOrder(
                    job_id=self._job.id, model=_for_worker(model), resolved=work.resolved, previews=previews
                )
            case LoadWork():
                return LoadOrder(job_id=self._job.id, model=_for_worker(self._tools.catalogue.get(work.model_id)))
            case BenchmarkWork():
                return BenchmarkOrder(job_id=self._job.id, suites=work.suites, max_duration_s=work.max_duration_s)
            case _:
                raise AssertionError(f"{self._job.kind} is no work for a device")

    async def _follow(self, worker: Worker, order: Order) -> None:
        reports: AsyncIterator[Report] = worker.carry_out(order)
        async with aclosing(reports):  # pyright: ignore[reportArgumentType]  # an async generator by contract of Worker
            while (report := await self._next(reports, worker)) is not None:
                await self._take(report)

    async def _next(self, reports: AsyncIterator[Report], worker: Worker) -> Report | None:
        """The next report; None: there are no more. A worker that tells nothing for too long hangs, and is ended."""
        async with patience(worker, self._tools.stall_timeout_s):
            return await anext(reports, None)

    async def _take(self, report: Report) -> None:
        """One report."""
        match report:
            case Progressed():
                self._jobs.record(self._job.id, self._pace.at(report))
            case StageStarted() | PreviewReady() | Degraded():
                self._note_loading(report)
                self._jobs.record(self._job.id, report)
            case ImageReady():
                self._pictures.take(report)
            case ModelLoaded():
                self._note_loading(report)
                pin = isinstance(self._job.work, LoadWork) and self._job.work.pin
                self._loaded = self._tools.loaded.put(report.loaded, pin=pin)
            case Benchmarked():
                self._benchmark = report.report
            case ModelUnloaded():
                self._tools.loaded.remove(f"{report.model_id}@{self._jobs.get(self._job.id).device_id}")
            case Finished():
                await self._pictures.stored()
                self.end = Succeeded(result=self._result(), receipt=self._receipt(report.receipt))
            case WorkFailed():
                await self._pictures.stored()
                failure, receipt = self._failure(report), self._receipt(report.receipt)
                self.end = Failed(failure=failure, receipt=receipt, result=self._partial())
            case Stopped():
                await self._pictures.stored()
                self.end = self._after_stop(report)
            case _:
                pass

    def _note_loading(self, report: StageStarted | PreviewReady | Degraded | ModelLoaded) -> None:
        """Loading has a time limit of its own."""
        if self._limits is None:
            return
        match report:
            case StageStarted(stage=Stage.LOADING):
                self._limits.loading()
            case StageStarted() | ModelLoaded():
                self._limits.loaded()
            case _:
                pass

    def _failure(self, report: WorkFailed) -> Failure:
        reason, facts = ErrorReason(report.reason), dict(report.facts)
        if reason is not ErrorReason.DRIVER_ERROR:
            return Failure(reason=reason, message=report.message, facts=facts)
        # It concerns the whole device: its process is ended as soon as the job has left it.
        facts["device_id"] = self._jobs.get(self._job.id).device_id
        return Failure(reason=reason, message=report.message, facts=facts, actions_taken=("worker restarted",))

    def _after_stop(self, report: Stopped) -> Cancelled | Failed | Interrupted:
        """What the stop means. A caller's cancellation goes before the end of its time, and that before an interruption."""
        interruption = self._tools.interrupting.pop(self._job.id, None)
        if self._jobs.get(self._job.id).state is JobState.CANCELLING:
            return self._cancelled(report)
        if self._limits is not None and self._limits.over is not None:
            failure = msgspec.structs.replace(Failure.of(self._limits.over), actions_taken=("stopped",))
            return Failed(failure=failure, receipt=self._receipt(report.receipt), result=self._partial())
        return interruption or self._cancelled(report)

    def _result(self) -> JobResult:
        if isinstance(self._job.work, GenerateWork):
            return GenerationResult(
                images=self._pictures.kept,
                resolved=self._job.work.resolved,
                precisions=tuple((one.id, one.precision) for one in self._loaded.components) if self._loaded else (),
                libraries=self._libraries,
            )
        if isinstance(self._job.work, BenchmarkWork):
            assert self._benchmark is not None, "a worker ends a benchmark with its report before Finished"
            self._note_figures(self._benchmark)
            return BenchmarkResult(report=self._benchmark)
        assert self._loaded is not None, "a worker ends a load with ModelLoaded before Finished"
        return LoadResult(loaded=self._loaded)

    def _note_figures(self, report: BenchmarkReport) -> None:
        """What advice and capabilities use from now on."""
        found = {result.median.name: result.median.value for result in report.results}
        before = self._tools.devices.get(report.device_id).figures
        figures = DeviceFigures(
            memory_bandwidth_bytes_per_s=found.get("device_copy", before.memory_bandwidth_bytes_per_s),
            relative_speed=self._against_cpu(report) or before.relative_speed,
        )
        self._tools.devices.measured(report, figures)

    def _against_cpu(self, report: BenchmarkReport) -> float | None:
        """Absent until the CPU was measured too."""
        cpu = self._tools.devices.find("cpu")
        own = report if report.device_id == "cpu" else cpu and cpu.benchmark
        reference = step_s(own) if own else None
        return relative_speed(report, reference) if reference else None

    def _partial(self) -> JobResult | None:
        return self._result() if self._pictures.kept else None

    def _cancelled(self, report: Stopped) -> Cancelled:
        live = self._jobs.live(self._job.id)
        latency = time.monotonic() - live.cancel_time_s if live.cancel_time_s else report.latency_s
        return Cancelled(
            stage=report.stage,
            latency_s=latency,
            cause=live.cancel_cause,
            freed_bytes=report.freed_bytes,
            receipt=self._receipt(report.receipt),
            result=self._partial(),
        )

    def _receipt(self, work: Receipt) -> JobReceipt:
        return msgspec.structs.replace(empty_receipt(self._jobs.get(self._job.id)), work=work)


def _for_worker(model: Model) -> Model:
    """What a worker needs of a model: not the list of its known prompts."""
    return msgspec.structs.replace(model, known_prompts=())
