"""A job whose device is out of memory moves to another one, if it permits that."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domains.errors import ErrorReason
from domains.inference.fallback import Fallback
from domains.inference.outcome import CheckpointReady, RunFailed, RunFinished
from domains.processing.jobs.event import Interrupted
from domains.processing.jobs.state import JobState
from domains.processing.workers.worker import GenerateOrder
from domains.progress import Degraded, Receipt, Stage, StageStarted
from tests.domains.device.test_devices import a_device
from tests.domains.processing.dispatch_bench import DispatchBench, PlayedWorker

FULL = RunFailed(
    reason=ErrorReason.DEVICE_OUT_OF_MEMORY,
    message="cuda:0 is full",
    facts={"needed_bytes": "300", "available_bytes": "100"},
    receipt=Receipt(steps_executed=3),
)
OTHER = msgspec.structs.replace(a_device(), id="gpu-2", aliases=("cuda:1",))
MOVES = Fallback(allow_other_device=True)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[DispatchBench]:
    bench = DispatchBench(tmp_path)
    yield bench
    await bench.close()


async def ordered(worker: PlayedWorker, job_id: str, *reports: Any) -> GenerateOrder:
    """The worker's order of the job; it then reports this."""
    while job_id not in worker.answers:
        await worker.asked.wait()
    for report in reports:
        worker.answers[job_id].put_nowait(report)
    order = worker.orders[-1]
    assert isinstance(order, GenerateOrder)
    return order


STARTED = StageStarted(stage=Stage.DENOISING)


async def test_it_goes_on_from_its_step_on_another_device_and_tells_so(bench: DispatchBench) -> None:
    job_id = bench.submit(fallback=MOVES)
    await bench.at_work(job_id)
    other, _ = bench.arrive("cuda:1", OTHER)
    await ordered(bench.worker, job_id, STARTED, CheckpointReady(step=3, data=b"latents"), FULL)
    order = await ordered(other, job_id, STARTED, RunFinished(receipt=Receipt(steps_executed=1)))
    assert order.given.kept is not None
    job = await bench.until(job_id, JobState.SUCCEEDED)
    assert (job.device_id, job.left_device_ids, job.attempt) == ("gpu-2", (a_device().id,), 2)
    (told,) = [event for event in bench.events(job_id) if isinstance(event, Degraded)]
    assert (told.kind, told.reason) == ("other_device", "DEVICE_OUT_OF_MEMORY")
    assert a_device().id in told.detail
    (left,) = [event for event in bench.events(job_id) if isinstance(event, Interrupted)]
    assert left.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
    assert job.receipt is not None
    assert (job.receipt.work.degradations, job.receipt.work.steps_executed) == ((told,), 4)


async def test_a_job_that_forbids_it_fails_and_is_told_what_would_have_helped(bench: DispatchBench) -> None:
    job_id = bench.submit()
    await bench.at_work(job_id)
    bench.arrive("cuda:1", OTHER)
    await ordered(bench.worker, job_id, STARTED, FULL)
    job = await bench.until(job_id, JobState.FAILED)
    assert job.failure is not None
    assert job.failure.facts["would_help"] == "options.fallback.allow_other_device"
    assert "options.fallback.allow_other_device" in job.failure.message


async def test_a_job_that_may_run_nowhere_else_fails(bench: DispatchBench) -> None:
    """Its options name one device, and a device that it has left counts no more."""
    named = bench.submit(fallback=MOVES, device_ids=("cuda:0",))
    free = bench.submit(fallback=MOVES)
    await bench.at_work(named, free)
    other, _ = bench.arrive("cuda:1", OTHER)
    for job_id in (named, free):
        await ordered(bench.worker, job_id, STARTED, FULL)
    await ordered(other, free, STARTED, FULL)
    for job_id in (named, free):
        job = await bench.until(job_id, JobState.FAILED)
        assert job.failure is not None
        assert "would_help" not in job.failure.facts
