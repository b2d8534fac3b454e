"""The time that a job may wait: counted while it waits, and forgotten when it does not wait any more."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from domains.errors import ErrorReason
from domains.processing.jobs.state import JobState
from tests.domains.processing.dispatch_bench import DispatchBench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[DispatchBench]:
    bench = DispatchBench(tmp_path)
    yield bench
    await bench.close()


async def test_a_job_that_waits_too_long_fails(bench: DispatchBench) -> None:
    bench.draining.begin()
    job_id = bench.submit(queue_timeout_s=0.01)
    failure = (await bench.until(job_id, JobState.FAILED)).failure
    assert failure is not None
    assert failure.reason is ErrorReason.QUEUE_TIMEOUT


async def test_no_deadline_outlives_the_wait(bench: DispatchBench) -> None:
    deadlines = bench.dispatcher._deadlines  # pyright: ignore[reportPrivateUsage]  # a timer that fires later is no event
    bench.draining.begin()
    cancelled, paused = (bench.submit(queue_timeout_s=1000.0) for _ in range(2))
    assert set(deadlines) == {cancelled, paused}
    bench.jobs.cancel(cancelled)
    bench.jobs.pause(paused)
    assert deadlines == {}
    await bench.jobs.resume(paused)
    assert set(deadlines) == {paused}


async def test_a_job_that_starts_has_no_deadline_any_more(bench: DispatchBench) -> None:
    job_id = bench.submit(queue_timeout_s=1000.0)
    await bench.at_work(job_id)
    assert bench.dispatcher._deadlines == {}  # pyright: ignore[reportPrivateUsage]  # as above
    await bench.finish(job_id)
