"""One attempt at a job: sends the order, turns each report into events, stores pictures, writes the end."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec

from domains.errors import DeadlineExceeded, ErrorReason
from domains.inference.outcome import Failed as WorkFailed
from domains.inference.outcome import Finished, ImageReady, Stopped
from domains.memory.blob_store import BlobStore
from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModel, LoadedModels
from domains.model.model import Model
from domains.processing.job import GenerateWork, Job, LoadWork, ScanWork
from domains.processing.job_event import (
    Cancelled,
    Failed,
    Failure,
    GeneratedImage,
    GenerationResult,
    JobReceipt,
    JobResult,
    LoadResult,
    OutputReady,
    ScanResult,
    Succeeded,
)
from domains.processing.jobs import Jobs
from domains.processing.live_job import LiveJob, empty_receipt
from domains.processing.pace import Pace
from domains.processing.worker import GenerateOrder, LoadOrder, ModelLoaded, ModelUnloaded, Order, Report, Worker
from domains.progress import Degraded, PreviewReady, Progressed, Receipt, Stage, StageStarted, StageTiming


class RunTools:
    """What every attempt needs."""

    def __init__(self, catalogue: Catalogue, loaded: LoadedModels, blobs: BlobStore) -> None:
        self.catalogue = catalogue
        self.loaded = loaded
        self.blobs = blobs

    @staticmethod
    def cancelled_by_death(live: LiveJob) -> Cancelled:
        """The proof for a job that was to stop when its process died: nothing of it runs any more."""
        latency = time.monotonic() - live.cancel_time_s if live.cancel_time_s else 0.0
        receipt = empty_receipt(live.job)
        return Cancelled(stage=live.job.stage, latency_s=latency, cause=live.cancel_cause, receipt=receipt)


class JobRun:
    """One attempt."""

    def __init__(self, job: Job, jobs: Jobs, tools: RunTools) -> None:
        self._job = job
        self._jobs = jobs
        self._tools = tools
        self._pace = Pace()
        self._images: dict[int, GeneratedImage] = self._images_of_earlier_attempts()
        self._storing: list[asyncio.Task[None]] = []
        """Pictures on their way to the disk, in their order."""
        self._loaded: LoadedModel | None = None
        self._libraries: tuple[str, ...] = ()

    async def run(self, worker: Worker | None) -> None:
        """Carry out the job's work to its end. Raises `WorkerGone`, or an error that is the job's failure."""
        if worker is None:
            await self._scan()
            return
        self._libraries = worker.device.libraries
        limit = self._job.options.run_timeout_s
        try:
            async with asyncio.timeout(limit):
                await self._follow(worker, self._order())
        except TimeoutError:
            message = f"ran longer than its run_timeout of {limit:g} s; allow more time or ask for fewer steps"
            raise DeadlineExceeded(message, ErrorReason.RUN_TIMEOUT, run_timeout_s=limit) from None

    def _order(self) -> Order:
        work = self._job.work
        match work:
            case GenerateWork():
                model = self._tools.catalogue.get(work.resolved.model_id)
                return GenerateOrder(job_id=self._job.id, model=_for_worker(model), resolved=work.resolved)
            case LoadWork():
                return LoadOrder(job_id=self._job.id, model=_for_worker(self._tools.catalogue.get(work.model_id)))
            case _:
                raise AssertionError(f"{self._job.kind} is no work for a device")

    async def _follow(self, worker: Worker, order: Order) -> None:
        reports: AsyncIterator[Report] = worker.carry_out(order)
        async with aclosing(reports):  # pyright: ignore[reportArgumentType]  # an async generator by contract of Worker
            async for report in reports:
                await self._take(report)

    async def _take(self, report: Report) -> None:
        """One report."""
        match report:
            case Progressed():
                self._jobs.record(self._job.id, self._pace.at(report))
            case StageStarted() | PreviewReady() | Degraded():
                self._jobs.record(self._job.id, report)
            case ImageReady():
                before = self._storing[-1] if self._storing else None
                self._storing.append(asyncio.create_task(self._keep(report, before)))
            case ModelLoaded():
                pin = isinstance(self._job.work, LoadWork) and self._job.work.pin
                self._loaded = self._tools.loaded.put(report.loaded, pin=pin)
            case ModelUnloaded():
                self._tools.loaded.remove(f"{report.model_id}@{self._jobs.get(self._job.id).device_id}")
            case Finished():
                await self._stored()
                self._jobs.record(self._job.id, Succeeded(result=self._result(), receipt=self._receipt(report.receipt)))
            case WorkFailed():
                await self._stored()
                failure = Failure(reason=ErrorReason(report.reason), message=report.message, facts=dict(report.facts))
                receipt = self._receipt(report.receipt)
                self._jobs.record(self._job.id, Failed(failure=failure, receipt=receipt, result=self._partial()))
            case Stopped():
                await self._stored()
                self._jobs.record(self._job.id, self._cancelled(report))

    async def _keep(self, image: ImageReady, before: asyncio.Task[None] | None) -> None:
        """Store a picture and tell of it, once, whichever attempt made it, and after the one before it."""
        if image.index in self._images:
            return
        blob = await self._tools.blobs.keep(image.data, image.media_type, self._job.id)
        if before is not None:
            await asyncio.wait([before])
        kept = GeneratedImage(
            index=image.index, seed=image.seed, width_px=image.width_px, height_px=image.height_px, blob=blob
        )
        self._images[image.index] = kept
        self._jobs.record(self._job.id, OutputReady(image=kept, total=self._total()))

    async def _stored(self) -> None:
        """All pictures are on disk; the first failure to store one is the job's."""
        await asyncio.gather(*self._storing)

    async def _scan(self) -> None:
        """Front work: look for models."""
        begin = time.monotonic()
        loop = asyncio.get_running_loop()

        def tell(report: Progressed) -> None:
            loop.call_soon_threadsafe(self._jobs.record, self._job.id, self._pace.at(report))

        self._jobs.record(self._job.id, StageStarted(stage=Stage.SCANNING))
        folders = self._job.work.roots if isinstance(self._job.work, ScanWork) else ()
        report = await self._tools.catalogue.rescan(
            tell, lambda: self._jobs.live(self._job.id).cancel_time_s is not None, folders
        )
        wall = time.monotonic() - begin
        if self._jobs.live(self._job.id).cancel_time_s is not None:
            stopped = Stopped(stage=Stage.SCANNING, latency_s=0.0, freed_bytes=None, receipt=Receipt())
            self._jobs.record(self._job.id, self._cancelled(stopped))
            return
        receipt = self._receipt(Receipt(timings=(StageTiming(stage=Stage.SCANNING, wall_s=wall),)))
        self._jobs.record(self._job.id, Succeeded(result=ScanResult(report=report), receipt=receipt))

    def _result(self) -> JobResult:
        if isinstance(self._job.work, GenerateWork):
            images = tuple(self._images[index] for index in sorted(self._images))
            return GenerationResult(
                images=images,
                resolved=self._job.work.resolved,
                precision=self._loaded.components[0].precision if self._loaded else "",
                libraries=self._libraries,
            )
        assert self._loaded is not None, "a worker ends a load with ModelLoaded before Finished"
        return LoadResult(loaded=self._loaded)

    def _partial(self) -> JobResult | None:
        return self._result() if self._images else None

    def _total(self) -> int:
        return len(self._job.work.resolved.seeds) if isinstance(self._job.work, GenerateWork) else 0

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

    def _images_of_earlier_attempts(self) -> dict[int, GeneratedImage]:
        entries = self._jobs.live(self._job.id).journal.after(0)
        return {entry.value.image.index: entry.value.image for entry in entries if isinstance(entry.value, OutputReady)}


def _for_worker(model: Model) -> Model:
    """What a worker needs of a model: not the list of its known prompts."""
    return msgspec.structs.replace(model, known_prompts=())
