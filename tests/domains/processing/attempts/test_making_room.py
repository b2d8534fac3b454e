"""An attempt whose device is out of memory: idle models leave it first, if the job permits it."""

from collections.abc import AsyncGenerator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from domains.errors import ErrorReason
from domains.inference.fallback import NOTHING, Fallback
from domains.inference.outcome import CheckpointReady, RunFailed
from domains.processing.jobs.state import JobState
from domains.processing.workers.worker import GenerateOrder
from domains.progress import Degraded, Receipt, Stage, StageStarted
from tests.domains.processing.dispatch_bench import DispatchBench

FULL = RunFailed(
    reason=ErrorReason.DEVICE_OUT_OF_MEMORY,
    message="cuda:0 is full",
    facts={"needed_bytes": "300", "available_bytes": "100"},
    receipt=Receipt(steps_executed=3),
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[DispatchBench]:
    bench = DispatchBench(tmp_path)
    yield bench
    await bench.close()


async def ordered(bench: DispatchBench, job_id: str, *reports: Any, number: int = 1) -> GenerateOrder:
    """The worker's order of this number; it then reports this."""
    while len(bench.worker.orders) < number:
        await bench.worker.asked.wait()
    order = bench.worker.orders[number - 1]
    for report in (StageStarted(stage=Stage.DENOISING), *reports):
        bench.worker.answers[job_id].put_nowait(report)
    assert isinstance(order, GenerateOrder)
    return order


async def test_an_idle_model_goes_and_the_job_goes_on_from_its_step(bench: DispatchBench) -> None:
    bench.memory.idle = ["other@cuda:0"]
    job_id = bench.submit()
    first = await ordered(bench, job_id, CheckpointReady(step=3, data=b"latents"), FULL)
    assert first.given.fallback == NOTHING, "the worker gives up nothing while an idle model can go"
    second = await ordered(bench, job_id, number=2)
    assert second.given.fallback == Fallback(max_attempts=2)
    assert second.given.kept is not None
    assert second.given.kept.sha256 == sha256(b"latents").hexdigest()
    await bench.finish(job_id)
    assert bench.memory.needs == [200]
    (told,) = [event for event in bench.events(job_id) if isinstance(event, Degraded)]
    assert (told.kind, told.reason) == ("eviction", "DEVICE_OUT_OF_MEMORY")
    assert "other@cuda:0" in told.detail
    receipt = bench.job(job_id).receipt
    assert receipt is not None
    assert (receipt.work.degradations, receipt.work.steps_executed) == ((told,), 3)
    assert bench.job(job_id).attempt == 1


async def test_a_job_that_forbids_it_fails_and_is_told_what_would_have_helped(bench: DispatchBench) -> None:
    bench.memory.idle = ["other@cuda:0"]
    job_id = bench.submit(fallback=Fallback(allow_eviction=False))
    order = await ordered(bench, job_id, CheckpointReady(step=3, data=b"latents"), FULL)
    assert order.given.fallback == Fallback(allow_eviction=False)
    job = await bench.until(job_id, JobState.FAILED)
    assert job.failure is not None
    assert job.failure.reason is ErrorReason.DEVICE_OUT_OF_MEMORY
    assert job.failure.facts["would_help"] == "options.fallback.allow_eviction"
    assert bench.memory.needs == []
    assert job.checkpoint is not None
    assert job.checkpoint.step == 3


async def test_models_go_one_after_the_other_until_the_attempts_are_used_up(bench: DispatchBench) -> None:
    bench.memory.idle = ["c", "b", "a"]
    job_id = bench.submit(fallback=Fallback(max_attempts=2))
    orders = [await ordered(bench, job_id, FULL, number=1 + n) for n in range(3)]
    assert [order.given.fallback.max_attempts for order in orders] == [0, 0, 0]
    await bench.until(job_id, JobState.FAILED)
    assert bench.memory.idle == ["c"]
    kinds = [event.kind for event in bench.events(job_id) if isinstance(event, Degraded)]
    assert kinds == ["eviction", "eviction"]


async def test_without_an_idle_model_the_worker_gives_up_what_it_may(bench: DispatchBench) -> None:
    job_id = bench.submit()
    order = await ordered(bench, job_id, FULL)
    assert order.given.fallback == Fallback()
    job = await bench.until(job_id, JobState.FAILED)
    assert job.failure is not None
    assert "would_help" not in job.failure.facts


async def test_a_model_that_cannot_be_unloaded_is_asked_for_once(bench: DispatchBench) -> None:
    bench.memory.idle, bench.memory.stuck = ["a"], True
    job_id = bench.submit()
    await ordered(bench, job_id, FULL)
    second = await ordered(bench, job_id, FULL, number=2)
    assert second.given.fallback == Fallback()
    await bench.until(job_id, JobState.FAILED)
    assert len(bench.memory.needs) == 1
