"""A validation computes one step in a job of its own, tells how that ended, and leaves no job behind."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from domains.errors import ErrorReason
from domains.failure import Failure
from domains.model.benchmark import BenchmarkCase, ModelBenchmarkReport
from domains.model.validation import Depth, Validation
from domains.processing.front.execute import Executed, Execution
from domains.processing.jobs.event import Cancelled, Failed, JobEvent, ModelBenchmarkResult, Started, Succeeded
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ModelBenchmarkWork, ScanWork
from domains.processing.jobs.live_job import receipt_of
from domains.processing.jobs.state import JobState
from domains.processing.jobs.store import JobStore
from domains.progress import Stage
from domains.reasons import Severity
from domains.storage import open_database
from tests.domains.inference.on_device.requests import embedded_model

RECEIPT = receipt_of(Jobs.draft(ScanWork(), JobOptions()), Instant.now())
NO_MEMORY = Failure(reason=ErrorReason.DEVICE_OUT_OF_MEMORY, message="too little memory")
CASE = BenchmarkCase(width_px=64, height_px=64, images=1, steps=1)


def succeeded(case: BenchmarkCase) -> Succeeded:
    report = ModelBenchmarkReport(
        model_id="emoji-sd",
        model_sha256="",
        device_id="sim-0",
        sampler="euler",
        precisions=(),
        cases=(case,),
        load=None,
        warnings=(),
        device_name="",
        driver_version="",
        libraries=(),
        start_time_s=0.0,
        duration_s=1.0,
    )
    return Succeeded(result=ModelBenchmarkResult(report=report), receipt=RECEIPT)


class Desk:
    """Jobs, and a validation that is to compute."""

    def __init__(self, folder: Path) -> None:
        self.database = open_database(folder)
        self.jobs = Jobs(JobStore(self.database, folder), keep_s=3600)
        self.stopped = asyncio.Event()
        options = JobOptions(session_id="s", device_ids=("sim-1",))
        self.task: Any = SimpleNamespace(
            job=replace(Jobs.draft(ScanWork(), options), id="parent"),
            tell=self._tell,
            unless_stopped=self._unless_stopped,
        )

    def _tell(self, event: object) -> None:
        """Keep no events: only the steps of the work count."""

    async def _unless_stopped(self, work: Awaitable[bool]) -> bool | None:
        ends = asyncio.ensure_future(work)
        stops = asyncio.ensure_future(self.stopped.wait())
        await asyncio.wait((ends, stops), return_when=asyncio.FIRST_COMPLETED)
        stops.cancel()
        if ends.done():
            return ends.result()
        ends.cancel()
        return None

    async def begun(self, **asked: Any) -> "tuple[asyncio.Task[Executed | None], Job]":
        validation = Validation(model_id="emoji-sd", depth=Depth.EXECUTE, **asked)
        result = asyncio.create_task(Execution(self.jobs).of(embedded_model(), validation, self.task))
        await asyncio.sleep(0)
        (job,) = self.jobs.unfinished()
        return result, job

    async def after(self, *events: JobEvent) -> Executed | None:
        result, job = await self.begun()
        for event in events:
            self.jobs.record(job.id, event)
        found = await asyncio.wait_for(result, 10)
        assert self.jobs.ids() == set()
        return found


@pytest.fixture
async def desk(tmp_path: Path) -> Any:
    desk = Desk(tmp_path)
    yield desk
    desk.database.close()


STARTED = Started(device_id="sim-0", attempt=1)


async def test_a_step_that_was_computed_tells_its_device(desk: Desk) -> None:
    assert await desk.after(STARTED, succeeded(CASE)) == Executed(device_id="sim-0")


@pytest.mark.parametrize(
    "end", [Failed(failure=NO_MEMORY, receipt=RECEIPT), succeeded(replace(CASE, failure=NO_MEMORY))]
)
async def test_a_step_that_failed_is_a_finding_with_its_reason(desk: Desk, end: JobEvent) -> None:
    found = await desk.after(STARTED, end)
    assert found is not None
    assert found.device_id == "sim-0"
    assert found.finding is not None
    assert (found.finding.reason, found.finding.field) == (ErrorReason.DEVICE_OUT_OF_MEMORY, "execution")
    assert (found.finding.message, found.finding.severity) == ("too little memory", Severity.ERROR)


async def test_a_step_that_somebody_cancelled_is_a_warning(desk: Desk) -> None:
    found = await desk.after(Cancelled(stage=Stage.QUEUED, latency_s=0.0, cause="", receipt=RECEIPT))
    assert found is not None
    assert found.device_id == ""
    assert found.finding is not None
    assert (found.finding.severity, "was cancelled" in found.finding.message) == (Severity.WARNING, True)


async def test_a_validation_that_is_stopped_takes_its_job_with_it(desk: Desk) -> None:
    result, job = await desk.begun()
    desk.jobs.record(job.id, STARTED)
    desk.stopped.set()
    cancelling = asyncio.Event()
    desk.jobs.listeners.append(lambda one: cancelling.set() if one.state is JobState.CANCELLING else None)
    await asyncio.wait_for(cancelling.wait(), 10)
    assert not result.done()
    desk.jobs.record(job.id, Cancelled(stage=Stage.DENOISING, latency_s=0.0, cause="", receipt=RECEIPT))
    assert await asyncio.wait_for(result, 10) is None
    assert desk.jobs.ids() == set()


@pytest.mark.parametrize(("asked", "devices"), [("", ("sim-1",)), ("sim-7", ("sim-7",))])
async def test_the_job_computes_where_it_was_asked_and_disturbs_nobody(
    desk: Desk, asked: str, devices: tuple[str, ...]
) -> None:
    result, job = await desk.begun(device_id=asked)
    assert isinstance(job.work, ModelBenchmarkWork)
    assert (job.work.asked.sizes, job.work.asked.steps, job.work.asked.runs, job.work.asked.warmup_runs) == (
        ((64, 64),),
        1,
        1,
        0,
    )
    options = job.options
    assert (options.device_ids, options.session_id, options.labels) == (devices, "", (("validation", "parent"),))
    fallback = options.fallback
    assert (fallback.allow_eviction, fallback.allow_other_device, fallback.max_attempts) == (False, False, 0)
    desk.jobs.record(job.id, Cancelled(stage=Stage.QUEUED, latency_s=0.0, cause="", receipt=RECEIPT))
    await asyncio.wait_for(result, 10)
