"""What a job waits for: told apart, and true at the moment of the question."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from domains.device.settings import DeviceSettings
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.kinds import BenchmarkWork
from domains.processing.jobs.state import JobState
from domains.processing.lanes.queue import EqualTerms
from domains.processing.lanes.waits import Wait, WaitReason, Waits
from domains.progress import Progressed, Stage, StageStarted, Unit
from tests.domains.processing.dispatch_bench import DispatchBench

DEVICE_ID = "gpu-1a2b3c4d"


class Waiting(DispatchBench):
    """A device for two jobs, and the question what others wait for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.is_full = False
        self.waits = Waits(self.board, self.devices, self._held_back, self.draining, self.jobs.find, self.beside)

    def _held_back(self, device_id: str, *, occupied: bool) -> bool:
        return self.is_full

    def of(self, job_id: str) -> Wait | None:
        return self.waits.now()(self.job(job_id))

    async def occupied(self) -> list[str]:
        """The jobs that fill the device."""
        running = [self.submit(), self.submit()]
        await self.at_work(*running)
        return running


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Waiting]:
    bench = Waiting(tmp_path)
    yield bench
    await bench.close()


async def test_a_job_behind_others_is_told_how_many(bench: Waiting) -> None:
    running = await bench.occupied()
    second, third, urgent = bench.submit(), bench.submit(), bench.submit(priority=3)
    told = [bench.of(job_id) for job_id in (urgent, second, third)]
    assert [wait and (wait.reason, wait.ahead, wait.device_id) for wait in told] == [
        (WaitReason.TURN, ahead, DEVICE_ID) for ahead in (0, 1, 2)
    ]
    assert told[2] is not None
    assert told[2].detail == f"2 waiting before it, 2 running on {DEVICE_ID}"
    assert [bench.of(job_id) for job_id in running] == [None, None]


async def test_a_job_that_fits_alone_but_not_beside_another_waits_for_its_end_and_is_told_so(bench: Waiting) -> None:
    bench.crowded = True
    first, second = bench.submit(), bench.submit()
    await bench.at_work(first)
    wait = bench.of(second)
    assert wait is not None
    assert (wait.reason, wait.device_id) == (WaitReason.MEMORY, DEVICE_ID)
    assert "beside" in wait.detail
    assert bench.job(second).state is JobState.QUEUED
    await bench.finish(first)
    await bench.finish(second)
    assert bench.job(second).attempt == 1


async def test_a_job_that_needs_the_device_alone_is_told_so_while_another_runs(bench: Waiting) -> None:
    await bench.at_work(bench.submit())
    alone = bench.of(bench.jobs.submit(BenchmarkWork(device_id="cuda:0", suites=()), JobOptions())[0].id)
    assert alone is not None
    assert (alone.reason, alone.device_id) == (WaitReason.TURN, DEVICE_ID)
    assert alone.detail == f"1 running on {DEVICE_ID}, it needs the device alone"


async def test_a_job_without_an_enabled_device_is_told_why_each_takes_none(bench: Waiting) -> None:
    bench.devices.set_settings(DEVICE_ID, DeviceSettings(enabled=False))
    wait = bench.of(bench.submit())
    assert wait is not None
    assert (wait.reason, wait.ahead, wait.device_id) == (WaitReason.DEVICE, None, "")
    assert f"{DEVICE_ID} is disabled: " in wait.detail


async def test_a_device_that_is_named_and_not_there_is_told(bench: Waiting) -> None:
    wait = bench.of(bench.submit(device_ids=("sim-7",)))
    assert wait is not None
    assert (wait.reason, wait.detail) == (WaitReason.DEVICE, "sim-7 is not there")


async def test_a_device_whose_memory_is_nearly_full_is_told(bench: Waiting) -> None:
    await bench.occupied()
    bench.is_full = True
    wait = bench.of(bench.submit())
    assert wait is not None
    assert (wait.reason, wait.device_id) == (WaitReason.MEMORY, DEVICE_ID)


async def test_a_job_that_has_begun_and_claims_memory_is_told(bench: Waiting) -> None:
    asked, granted = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def claimed(job: Job, device_id: str) -> AsyncGenerator[None]:
        asked.set()
        await granted.wait()
        yield

    bench.memory.claim = claimed
    job_id = bench.submit()
    await asked.wait()
    wait = bench.of(job_id)
    assert wait is not None
    assert (wait.reason, wait.device_id) == (WaitReason.MEMORY, DEVICE_ID)
    granted.set()
    await bench.at_work(job_id)
    assert bench.of(job_id) is None


async def test_a_job_behind_a_load_is_told_how_far_the_load_is(bench: Waiting) -> None:
    loading, other = await bench.occupied()
    waiting = bench.submit()
    moved = Progressed(stage=Stage.LOADING, completed=1 << 20, total=4 << 20, unit=Unit.BYTES)
    for report in (StageStarted(stage=Stage.LOADING), moved):
        bench.worker.answers[loading].put_nowait(report)
    while bench.job(loading).progress is None:
        await bench.jobs.live(loading).journal.more(bench.jobs.live(loading).journal.last_sequence, 1.0)
    detail = f"{loading} is loading its model on {DEVICE_ID} (1.0 MiB of 4.0 MiB)"
    assert bench.of(waiting) == Wait(reason=WaitReason.LOAD, detail=detail, device_id=DEVICE_ID, ahead=0)
    # The other one has begun, and its worker is blocked by the load.
    assert bench.of(other) == Wait(reason=WaitReason.LOAD, detail=detail, device_id=DEVICE_ID)
    assert bench.of(loading) is None


async def test_a_job_that_waits_for_a_shutdown_to_be_over_is_told(bench: Waiting) -> None:
    await bench.occupied()
    job_id = bench.submit()
    bench.draining.begin()
    wait = bench.of(job_id)
    assert wait is not None
    assert wait.reason is WaitReason.SHUTDOWN


async def test_a_job_that_has_ended_waits_for_nothing(bench: Waiting) -> None:
    job_id = bench.submit()
    await bench.finish(job_id)
    assert bench.job(job_id).state is JobState.SUCCEEDED
    assert bench.of(job_id) is None


async def test_a_job_of_a_session_that_is_held_is_told_why(bench: Waiting) -> None:
    class Held(EqualTerms):
        def holds_back(self, session_id: str, running: int) -> bool:
            return session_id == "ses-1"

        def held_because(self, session_id: str) -> str:
            return f"session {session_id} is paused: lunch"

    bench.board.queue.terms = Held()
    wait = bench.of(bench.submit(session_id="ses-1"))
    assert wait == Wait(reason=WaitReason.SESSION, detail="session ses-1 is paused: lunch")
