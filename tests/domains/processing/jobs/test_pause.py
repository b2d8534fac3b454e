"""A pause: at once where a job waits, at the end of its attempt where it runs, and no part of its time."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from domains.clock import ClockStep, ExpiryClock
from domains.errors import ErrorReason, FailedPrecondition, ResourceExhausted
from domains.model.scan import ScanReport
from domains.processing.jobs.event import (
    Checkpoint,
    Interrupted,
    JobEvent,
    JobReceipt,
    Paused,
    Resumed,
    ScanResult,
    Started,
    Succeeded,
)
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.state import JobState
from domains.processing.jobs.store import JobStore
from domains.progress import Receipt, Stage
from domains.stop import StopKind
from domains.storage import open_database

CHECKPOINT = Checkpoint(blob_id="b", sha256="", size_bytes=1, step=7, time_s=1.0)


class Clock:
    """The time as the test says it."""

    unix_s = 1000.0
    monotonic_s = 50.0

    def turn(self, seconds: float) -> None:
        self.unix_s += seconds
        self.monotonic_s += seconds

    def now(self) -> Instant:
        return Instant(self.unix_s, self.monotonic_s)


class Bench:
    """Jobs whose time stands still."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.database = open_database(folder)
        self.doubtful = False
        self.store = JobStore(self.database, folder)
        self.jobs = self.opened()

    def opened(self) -> Jobs:
        """As a new process would."""
        store, self.expiry = JobStore(self.database, self.folder), ExpiryClock()
        return Jobs(store, 3600, expiry=self.expiry, now=self.clock.now, date_doubtful=lambda: self.doubtful)

    def submit(self, state: JobState = JobState.QUEUED) -> str:
        job_id = self.jobs.submit(ScanWork(), JobOptions())[0].id
        if state is not JobState.QUEUED:
            self.jobs.record(job_id, Started(device_id="sim-0", attempt=1))
        return job_id

    def events(self, job_id: str) -> list[JobEvent]:
        return [entry.value for entry in self.jobs.live(job_id).journal.after(0)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    with closing(bench.database):
        yield bench


def end(bench: Bench, job_id: str) -> None:
    receipt = JobReceipt(work=Receipt(), queue_s=0.0, run_s=0.0, attempts=1)
    bench.jobs.record(job_id, Succeeded(result=ScanResult(report=ScanReport()), receipt=receipt))


async def test_a_waiting_job_pauses_at_once_and_is_queued_again(bench: Bench) -> None:
    job_id = bench.submit()
    paused = bench.jobs.pause(job_id, "later")
    assert (paused.state, paused.pause_time_s) == (JobState.PAUSED, 1000.0)
    event = bench.events(job_id)[-1]
    assert isinstance(event, Paused)
    assert (event.cause, event.completed) == ("later", 0)
    bench.clock.turn(30)
    resumed = await bench.jobs.resume(job_id, "now")
    assert (resumed.state, resumed.pause_time_s, resumed.waiting_paused_s) == (JobState.QUEUED, None, 30.0)
    assert bench.events(job_id)[-1] == Resumed(from_step=0, cause="now")


async def test_a_running_job_is_asked_and_its_attempt_ends_in_the_pause(bench: Bench) -> None:
    job_id = bench.submit(JobState.RUNNING)
    assert bench.jobs.pause(job_id, "later").state is JobState.PAUSING
    live = bench.jobs.live(job_id)
    assert live.stop is not None
    assert (live.stop.kind, live.stop.cause, live.pause_cause) == (StopKind.PAUSE, "later", "later")
    assert live.stop.asked_s is not None
    resumption = asyncio.create_task(bench.jobs.resume(job_id))
    await asyncio.sleep(0)
    assert not resumption.done()
    bench.jobs.record(job_id, Paused(stage=Stage.DENOISING, completed=7, checkpoint=CHECKPOINT))
    assert live.stop is None
    assert (await resumption).state is JobState.QUEUED
    assert bench.events(job_id)[-1] == Resumed(from_step=7)


async def test_asking_twice_is_the_same_as_once(bench: Bench) -> None:
    waiting, running = bench.submit(), bench.submit(JobState.RUNNING)
    for job_id in (waiting, running):
        first = bench.jobs.pause(job_id)
        assert bench.jobs.pause(job_id) == first
    await bench.jobs.resume(waiting)
    count = len(bench.events(waiting))
    assert (await bench.jobs.resume(waiting)).state is JobState.QUEUED
    bench.jobs.record(waiting, Started(device_id="sim-0", attempt=1))
    assert (await bench.jobs.resume(waiting)).state is JobState.RUNNING
    assert len(bench.events(waiting)) == count + 1


async def test_a_job_that_was_interrupted_while_it_waits_pauses_and_is_resumed(bench: Bench) -> None:
    job_id = bench.submit(JobState.RUNNING)
    bench.jobs.record(job_id, Interrupted(reason=ErrorReason.PREEMPTED, message="memory"))
    assert bench.jobs.pause(job_id).state is JobState.PAUSED
    assert (await bench.jobs.resume(job_id)).state is JobState.QUEUED


async def test_a_job_that_ended_is_neither_paused_nor_resumed(bench: Bench) -> None:
    job_id = bench.submit(JobState.RUNNING)
    end(bench, job_id)
    with pytest.raises(FailedPrecondition):
        bench.jobs.pause(job_id)
    with pytest.raises(FailedPrecondition):
        await bench.jobs.resume(job_id)


def test_a_pause_without_room_for_its_progress_is_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = bench.submit(JobState.RUNNING)

    def full(*_: object) -> None:
        raise ResourceExhausted("the disk is full", ErrorReason.STORAGE_FULL)

    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "check_room", full)
        with pytest.raises(ResourceExhausted):
            bench.jobs.pause(job_id)
    assert bench.jobs.get(job_id).state is JobState.RUNNING
    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "append", full, raising=False)
        patched.setattr(type(bench.jobs._recorder), "record", full)  # pyright: ignore
        with pytest.raises(ResourceExhausted):
            bench.jobs.pause(job_id)
    assert bench.jobs.live(job_id).stop is None


def test_a_cancellation_is_stronger_than_a_pause(bench: Bench) -> None:
    job_id = bench.submit(JobState.RUNNING)
    bench.jobs.pause(job_id)
    assert bench.jobs.cancel(job_id).state is JobState.CANCELLING
    stop = bench.jobs.live(job_id).stop
    assert stop is not None
    assert stop.kind is StopKind.CANCEL


def test_what_was_asked_of_a_job_holds_for_the_next_process(bench: Bench) -> None:
    first, second, third = (bench.submit(JobState.RUNNING) for _ in range(3))
    bench.jobs.pause(first, "later")
    bench.jobs.cancel(second, "not needed")
    told: list[str] = []
    queued, paused = bench.submit(), bench.submit()
    bench.jobs.pause(paused)
    bench.jobs = bench.opened()
    bench.jobs.listeners.append(lambda job: told.append(job.id))
    waits = bench.jobs.recover()
    assert [job.id for job in waits] == [first, third, queued, paused]
    assert [bench.jobs.get(each).state for each in (first, second, third, queued, paused)] == [
        JobState.PAUSED,
        JobState.CANCELLED,
        JobState.INTERRUPTED,
        JobState.QUEUED,
        JobState.PAUSED,
    ]
    assert {*told} >= {first, second, third, queued}
    causes = [event.cause for event in bench.events(first) if isinstance(event, Paused)]
    assert causes == ["later"]
    assert bench.jobs.live(second).cancel_cause == "not needed"


def test_the_newest_pause_tells_its_cause(bench: Bench) -> None:
    job_id = bench.submit(JobState.RUNNING)
    live = bench.jobs.live(job_id)
    assert (live.pause_cause, live.cancel_cause) == ("", "")
    bench.jobs.pause(job_id, "first")
    bench.jobs.record(job_id, Paused(stage=Stage.DENOISING, completed=0))
    bench.jobs.record(job_id, Resumed(from_step=0))
    bench.jobs.record(job_id, Started(device_id="sim-0", attempt=2))
    bench.jobs.pause(job_id, "second")
    assert live.pause_cause == "second"


def test_a_job_that_waited_too_long_says_how_long_was_allowed(bench: Bench) -> None:
    job_id = bench.submit()
    failed = bench.jobs.waited_too_long(job_id, 2.5)
    assert failed.state is JobState.FAILED
    assert failed.failure is not None
    assert (failed.failure.reason, failed.failure.facts) == (ErrorReason.QUEUE_TIMEOUT, {"queue_timeout_s": "2.5"})
    assert "queue_timeout of 2.5 s" in failed.failure.message


def test_the_age_of_a_job_ignores_steps_of_the_wall_clock(bench: Bench) -> None:
    job = bench.jobs.get(bench.submit())
    bench.clock.turn(20)
    bench.clock.unix_s -= 500
    assert bench.jobs.age_s(job) == 20.0
    bench.clock.unix_s += 500
    bench.jobs = bench.opened()
    assert bench.jobs.age_s(job) == 20.0, "the date of another process"
    for listener in bench.expiry.on_step:
        listener(ClockStep(delta_s=100.0, from_s=0.0))
    bench.clock.unix_s += 100
    assert bench.jobs.age_s(job) == 20.0
    bench.clock.unix_s -= 5000
    assert bench.jobs.age_s(job) == 0.0
    bench.doubtful = True
    bench.clock.unix_s += 5000
    assert bench.jobs.age_s(job) == 0.0


def test_expiry_moves_with_the_wall_clock(bench: Bench) -> None:
    job_id = bench.submit(JobState.RUNNING)
    end(bench, job_id)
    now = [bench.clock.unix_s + 3601]
    expiry = ExpiryClock(lambda: now[0])
    jobs = Jobs(bench.store, 3600, expiry=expiry)
    assert jobs.expired() == [job_id]
    for listener in expiry.on_step:
        listener(ClockStep(delta_s=1000.0, from_s=0.0))
    assert jobs.expired() == []
    now[0] += 1000
    assert jobs.expired() == [job_id]


async def test_ends_are_stored_again_and_again_until_cancelled(bench: Bench) -> None:
    tries: list[int] = []
    twice = asyncio.Event()

    def store_ends() -> None:
        tries.append(1)
        if len(tries) == 2:
            twice.set()

    bench.jobs.store_ends = store_ends  # pyright: ignore[reportAttributeAccessIssue]
    task = asyncio.create_task(bench.jobs.keep_ends_stored(0.001))
    await asyncio.wait_for(twice.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_job_that_ended_says_how_whatever_is_asked_of_it(bench: Bench) -> None:
    job_id = bench.submit(JobState.RUNNING)
    end(bench, job_id)
    for ask in (bench.jobs.cancel, bench.jobs.pause):
        with pytest.raises(FailedPrecondition, match=r"has already ended \(succeeded\)"):
            ask(job_id)
    with pytest.raises(FailedPrecondition, match=r"has already ended \(succeeded\)"):
        await bench.jobs.resume(job_id)


def test_a_job_that_is_being_cancelled_is_not_paused(bench: Bench) -> None:
    job_id = bench.submit(JobState.RUNNING)
    bench.jobs.cancel(job_id)
    with pytest.raises(FailedPrecondition, match="is cancelling and cannot be paused"):
        bench.jobs.pause(job_id)
    assert bench.jobs.live(job_id).stop is not None
