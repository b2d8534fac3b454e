"""Attempts: a wish to stop reaches a job wherever it is, and a worker's death counts against the job that caused it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from structlog.contextvars import bound_contextvars, get_contextvars
from structlog.testing import capture_logs

from domains.device.benchmark import Suite
from domains.device.workload import WINDOW_S
from domains.errors import ErrorReason, InternalError
from domains.inference.generation import Previews
from domains.inference.outcome import (
    ImageReady,
    LatentsReady,
    ModelLoaded,
    ModelPlacing,
    ModelUnloaded,
    RunFailed,
    RunFinished,
)
from domains.memory.blobs.blob import Blob
from domains.model.loaded import LoadedComponent, LoadedModel, LoadedState
from domains.processing.attempts.attempt import _failure_of  # pyright: ignore[reportPrivateUsage]
from domains.processing.attempts.front_task import FrontTask
from domains.processing.attempts.time_limits import TimeLimits
from domains.processing.jobs.event import Cancelled, Failed, GenerationResult, Interrupted, JobEvent, OutputReady
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import BenchmarkWork, ScanWork
from domains.processing.jobs.outcome import Halted
from domains.processing.jobs.state import JobState
from domains.processing.workers.worker import Emptied, Report
from domains.progress import Receipt, Stage, StageStarted
from tests.domains.processing.dispatch_bench import NO_RUNNERS, STOP_LIMIT_S, STOPPED, DispatchBench
from tests.domains.processing.scripted_worker import Floor

FINISHED = RunFinished(receipt=Receipt())
DEVICE = "gpu-1a2b3c4d"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[DispatchBench]:
    bench = DispatchBench(tmp_path)
    yield bench
    await bench.close()


class SlowClaim:
    """Memory that does not come until the test says so."""

    def __init__(self, bench: DispatchBench) -> None:
        self.asked, self.granted = asyncio.Event(), asyncio.Event()
        self.open = 0
        bench.memory.claim = self._claimed

    @asynccontextmanager
    async def _claimed(self, job: Job, device_id: str) -> AsyncGenerator[None]:
        self.asked.set()
        await self.granted.wait()
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


async def test_a_cancel_ends_the_wait_for_memory_and_nothing_runs(bench: DispatchBench) -> None:
    claim = SlowClaim(bench)
    job_id = bench.submit()
    await claim.asked.wait()
    bench.jobs.cancel(job_id, "changed my mind")
    await bench.until(job_id, JobState.CANCELLED)
    end = bench.events(job_id)[-1]
    assert isinstance(end, Cancelled)
    assert end.cause == "changed my mind"
    assert (bench.worker.answers, claim.open) == ({}, 0)


async def test_a_cancel_as_the_memory_comes_stops_the_job_before_its_order(bench: DispatchBench) -> None:
    claim = SlowClaim(bench)
    job_id = bench.submit()
    await claim.asked.wait()
    claim.granted.set()
    bench.jobs.cancel(job_id)
    await bench.until(job_id, JobState.CANCELLED)
    await bench.dispatcher.idle()
    assert (bench.worker.answers, claim.open) == ({}, 0)


async def test_an_interruption_ends_the_wait_for_memory_and_the_job_waits_again(bench: DispatchBench) -> None:
    claim = SlowClaim(bench)
    job_id = bench.submit()
    await claim.asked.wait()
    # As a clean-up does that holds what the claim waits for: it waits for the job to leave its device.
    async with asyncio.timeout(5):
        await bench.board.lanes.preempt(job_id, ErrorReason.PREEMPTED, "its memory was needed")
    interruptions = [event for event in bench.events(job_id) if isinstance(event, Interrupted)]
    assert [event.reason for event in interruptions] == [ErrorReason.PREEMPTED]
    claim.granted.set()
    await bench.finish(job_id)
    assert bench.job(job_id).attempt == 2


async def test_a_refused_claim_is_the_jobs_failure(bench: DispatchBench) -> None:
    @asynccontextmanager
    async def refused(job: Job, device_id: str) -> AsyncGenerator[None]:
        raise TimeoutError("not ours")
        yield

    bench.memory.claim = refused
    job_id = bench.submit()
    await bench.until(job_id, JobState.FAILED)


async def lingering(bench: DispatchBench, claim: SlowClaim, last: Report) -> str:
    """A job whose worker has said its last word, and holds on to its memory."""
    bench.worker.lingers = True
    claim.granted.set()
    job_id = bench.submit()
    await bench.at_work(job_id)
    bench.worker.answers[job_id].put_nowait(last)
    await bench.worker.lingering.wait()
    return job_id


def leave(bench: DispatchBench) -> None:
    """The worker is done with its orders."""
    bench.worker.lingers = False
    for answers in bench.worker.answers.values():
        answers.put_nowait(FINISHED)


async def test_who_hears_of_the_end_finds_the_memory_free(bench: DispatchBench) -> None:
    claim = SlowClaim(bench)
    open_at_end: list[int] = []
    bench.jobs.listeners.append(lambda job: open_at_end.append(claim.open) if job.state.ended else None)
    job_id = await lingering(bench, claim, FINISHED)
    assert (bench.job(job_id).state, claim.open) == (JobState.RUNNING, 1)
    leave(bench)
    await bench.until(job_id, JobState.SUCCEEDED)
    assert open_at_end == [0]


async def test_a_worker_that_dies_after_its_last_word_has_said_it(bench: DispatchBench) -> None:
    job_id = await lingering(bench, SlowClaim(bench), FINISHED)
    bench.die()
    await bench.until(job_id, JobState.SUCCEEDED)


async def test_a_cancel_while_an_interrupted_job_leaves_its_device_ends_it(bench: DispatchBench) -> None:
    claim = SlowClaim(bench)
    bench.worker.lingers = True
    claim.granted.set()
    job_id = bench.submit()
    await bench.at_work(job_id)
    interrupting = asyncio.create_task(bench.board.lanes.preempt(job_id, ErrorReason.PREEMPTED, "needed elsewhere"))
    await bench.worker.lingering.wait()
    bench.jobs.cancel(job_id, "not at all")
    leave(bench)
    await interrupting
    await bench.until(job_id, JobState.CANCELLED)
    assert not any(isinstance(event, Interrupted) for event in bench.events(job_id))


PICTURE = ImageReady(index=0, seed=1, media_type="image/png", width_px=64, height_px=64, data=b"picture")


def sizes(end: JobEvent) -> list[int]:
    """Of the pictures that a job's end tells."""
    assert isinstance(end, Cancelled | Failed)
    assert isinstance(end.result, GenerationResult)
    return [image.blob.size_bytes for image in end.result.images]


async def picture_made(bench: DispatchBench, job_id: str) -> None:
    await bench.at_work(job_id)
    bench.worker.answers[job_id].put_nowait(PICTURE)
    journal = bench.jobs.live(job_id).journal
    while not any(isinstance(event, OutputReady) for event in bench.events(job_id)):
        await journal.more(journal.last_sequence, 5.0)


async def test_a_job_that_is_cancelled_keeps_its_pictures_wherever_it_is(bench: DispatchBench) -> None:
    running, waiting = bench.submit(pictures=2), bench.submit(pictures=2)
    for job_id in (running, waiting):
        await picture_made(bench, job_id)
    bench.jobs.cancel(running)
    await bench.until(running, JobState.CANCELLED)
    bench.die()
    await bench.until(waiting, JobState.INTERRUPTED)
    bench.jobs.cancel(waiting)
    assert [sizes(bench.events(job_id)[-1]) for job_id in (running, waiting)] == [[7], [7]]


async def test_a_job_whose_time_is_up_tells_what_it_spent_and_keeps_its_pictures(bench: DispatchBench) -> None:
    job_id = bench.submit(pictures=2, run_timeout_s=0.5)
    await bench.at_work(job_id)
    await picture_made(bench, job_id)
    await bench.until(job_id, JobState.FAILED)
    end = bench.events(job_id)[-1]
    assert isinstance(end, Failed)
    assert end.failure.reason is ErrorReason.RUN_TIMEOUT
    assert end.receipt.work == STOPPED.receipt
    assert sizes(end) == [7]
    assert bench.worker.stopped == [job_id]


async def test_a_load_that_takes_longer_than_allowed_ends_the_job(bench: DispatchBench) -> None:
    job_id = bench.submit(load_timeout_s=0.05)
    await bench.at_work(job_id)
    bench.worker.answers[job_id].put_nowait(StageStarted(stage=Stage.LOADING))
    await bench.until(job_id, JobState.FAILED)
    end = bench.events(job_id)[-1]
    assert isinstance(end, Failed)
    assert end.failure.reason is ErrorReason.LOAD_TIMEOUT
    assert (end.failure.facts, end.receipt.work) == ({"load_timeout_s": "0.05"}, STOPPED.receipt)
    assert bench.worker.stopped == [job_id]


async def test_the_time_to_load_ends_with_the_loading(bench: DispatchBench) -> None:
    job_id = bench.submit(load_timeout_s=0.3, run_timeout_s=0.9)
    await bench.at_work(job_id)
    for stage in (Stage.LOADING, Stage.DENOISING):
        bench.worker.answers[job_id].put_nowait(StageStarted(stage=stage))
    await bench.until(job_id, JobState.FAILED)
    end = bench.events(job_id)[-1]
    assert isinstance(end, Failed)
    assert end.failure.reason is ErrorReason.RUN_TIMEOUT


async def crash(bench: DispatchBench, *job_ids: str) -> None:
    """Their worker dies and another starts."""
    await bench.at_work(*job_ids)
    bench.die()
    for job_id in job_ids:
        await bench.until(job_id, JobState.INTERRUPTED)
    bench.start_worker()


async def test_a_job_that_takes_its_worker_down_three_times_alone_fails(bench: DispatchBench) -> None:
    job_id = bench.submit()
    await crash(bench, job_id)
    await crash(bench, job_id)
    await bench.at_work(job_id)
    bench.die()
    failure = (await bench.until(job_id, JobState.FAILED)).failure
    assert failure is not None
    assert failure.reason is ErrorReason.DEVICE_LOST
    assert failure.facts["attempts"] == "3"


async def test_its_neighbour_is_not_counted_for_it_and_runs_in_peace(bench: DispatchBench) -> None:
    poison, healthy = bench.submit(priority=3), bench.submit()
    await crash(bench, poison, healthy)
    # From now on each is alone: the poison takes nobody along, and what it does counts against it.
    await bench.at_work(poison)
    assert set(bench.lane.running) == {poison}
    await crash(bench, poison)
    await crash(bench, poison)
    await bench.at_work(poison)
    bench.die()
    await bench.until(poison, JobState.FAILED)
    bench.start_worker()
    await bench.at_work(healthy)
    other = bench.submit()
    await bench.finish(healthy)
    await bench.finish(other)
    assert (bench.job(poison).crashes, bench.job(healthy).crashes, bench.job(healthy).attempt) == (2, 0, 2)


async def test_a_worker_that_is_ended_on_purpose_counts_against_nobody(bench: DispatchBench) -> None:
    job_id = bench.submit()
    for _ in range(4):
        await bench.at_work(job_id)
        bench.lane.end_worker("the device is reset")
        bench.die()
        await bench.until(job_id, JobState.INTERRUPTED)
        bench.start_worker()
    await bench.finish(job_id)
    assert not bench.job(job_id).suspect


async def test_only_a_job_that_ended_counts_in_the_workload_of_its_device(bench: DispatchBench) -> None:
    def jobs_per_minute() -> float:
        return bench.board.meter.workload(bench.lane.device_id).jobs_per_s * WINDOW_S

    job_id = bench.submit()
    await bench.at_work(job_id)
    bench.lane.end_worker("the device is reset")
    bench.die()
    await bench.until(job_id, JobState.INTERRUPTED)
    await bench.dispatcher.idle()
    assert jobs_per_minute() == 0
    bench.start_worker()
    await bench.finish(job_id)
    await bench.dispatcher.idle()
    assert jobs_per_minute() == pytest.approx(1)


async def test_restarts_of_the_server_count_against_nobody(tmp_path: Path) -> None:
    bench = DispatchBench(tmp_path)
    job_id = bench.submit()
    for _ in range(4):
        await bench.at_work(job_id)
        bench.draining.begin()
        bench.die()
        await bench.until(job_id, JobState.INTERRUPTED)
        await bench.dispatcher.idle()
        await bench.close()
        bench = DispatchBench(tmp_path)
        assert [job.id for job in bench.jobs.recover()] == [job_id]
    await bench.finish(job_id)
    await bench.close()


async def test_what_counts_against_a_job_survives_a_restart(bench: DispatchBench) -> None:
    job_id = bench.submit()
    await crash(bench, job_id)
    again = Jobs(bench.jobs._store, keep_s=3600)  # pyright: ignore[reportPrivateUsage]  # the same disk, read anew
    again.recover()
    assert (again.get(job_id).crashes, again.get(job_id).suspect) == (1, True)


async def test_a_picture_that_is_being_stored_as_its_worker_dies_is_there_once(
    bench: DispatchBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, keep = asyncio.Event(), bench.blobs.keep

    async def slowly(data: bytes, media_type: str, owner_id: str) -> Blob:
        await room.wait()
        return await keep(data, media_type, owner_id)

    monkeypatch.setattr(bench.blobs, "keep", slowly)
    job_id = bench.submit(pictures=2)
    await bench.at_work(job_id)
    bench.worker.answers[job_id].put_nowait(PICTURE)
    bench.die()
    room.set()
    await bench.until(job_id, JobState.INTERRUPTED)
    bench.start_worker()
    await bench.at_work(job_id)
    bench.worker.answers[job_id].put_nowait(PICTURE)
    await bench.finish(job_id)
    assert [type(event) for event in bench.events(job_id)].count(OutputReady) == 1


async def test_a_worker_that_does_not_stop_a_cancelled_job_is_ended(bench: DispatchBench) -> None:
    bench.worker.obeys = False
    job_id, neighbour = bench.submit(), bench.submit()
    await bench.at_work(job_id, neighbour)
    bench.worker.on_end = bench.die
    bench.jobs.cancel(job_id, "changed my mind")
    await bench.until(job_id, JobState.CANCELLED)
    await bench.until(neighbour, JobState.INTERRUPTED)
    end = bench.events(job_id)[-1]
    assert isinstance(end, Cancelled)
    assert end.latency_s >= STOP_LIMIT_S
    # Its neighbour is not suspected for it.
    assert not bench.job(neighbour).suspect


async def test_a_worker_that_ends_an_order_without_a_report_or_with_a_strange_one_fails_the_job(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    worker = floor.arrive()
    for reports, told in (((), "without its last report"), ((Emptied(freed_bytes=1),), "answered a job with Emptied")):
        worker.say(*reports)
        job_id = floor.jobs.submit(BenchmarkWork(device_id="sim-0", suites=tuple(Suite)[:1]), JobOptions())[0].id
        live = floor.jobs.live(job_id)
        while not live.job.state.ended:
            await live.journal.more(live.journal.last_sequence, 5.0)
        await floor.dispatcher.idle()
        assert live.job.failure is not None
        assert (live.job.failure.reason, told in live.job.failure.message) == (ErrorReason.INVARIANT_BROKEN, True)
    await floor.close()


async def test_latents_that_come_before_a_picture_are_told_with_it(bench: DispatchBench) -> None:
    job_id = bench.submit()
    await bench.at_work(job_id)
    for report in (
        LatentsReady(index=0, shape=(4, 8, 8), completed_steps=2, data=b"latents"),
        ImageReady(index=0, seed=1, media_type="image/png", width_px=8, height_px=8, data=b"picture"),
        RunFinished(receipt=Receipt()),
    ):
        bench.worker.answers[job_id].put_nowait(report)
    result = (await bench.until(job_id, JobState.SUCCEEDED)).result
    assert isinstance(result, GenerationResult)
    (image,) = result.images
    assert image.latents is not None
    assert (image.latents.shape, image.latents.completed_steps) == ((4, 8, 8), 2)
    assert image.latents.blob.size_bytes == len(b"latents")


async def test_work_of_the_front_is_logged_by_its_own_job_and_without_the_device_of_another(tmp_path: Path) -> None:
    bound = list[Mapping[str, object]]()

    async def scan(work: ScanWork, task: FrontTask) -> Halted:
        bound.append(get_contextvars())
        floor.jobs.cancel(task.job.id)
        return Halted()

    floor = Floor(tmp_path, msgspec.structs.replace(NO_RUNNERS, scan=scan))
    with bound_contextvars(job_id="job-1", device_id="sim-0"):
        live = floor.jobs.live(floor.jobs.submit(ScanWork(), JobOptions())[0].id)
    while not live.job.state.ended:
        await live.journal.more(live.journal.last_sequence, 5.0)
    await floor.dispatcher.idle()
    assert bound == [{"job_id": live.job.id}]
    await floor.close()


async def test_a_load_that_replaces_a_model_is_followed_to_its_end(
    bench: DispatchBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    changes: asyncio.Queue[LoadedModel] = asyncio.Queue()
    old = LoadedModel(
        id=f"emoji-sd@{DEVICE}", model_id="emoji-sd", device_id=DEVICE, components=(), load_time_s=1, last_use_time_s=1
    )
    bench.loaded.put(old)
    bench.loaded.on_change.append(lambda change: changes.put_nowait(change.loaded))
    job_id = bench.submit()
    await bench.at_work(job_id)

    def noted(limits: TimeLimits) -> None:
        ended.append(changes.qsize())

    monkeypatch.setattr(TimeLimits, "loaded", noted)
    parts = (LoadedComponent(id="unet", bytes=7, precision="float32"),)
    new = msgspec.structs.replace(old, components=parts, load_time_s=2)
    for report in (
        ModelUnloaded(model_id="emoji-sd", freed_bytes=None),
        StageStarted(stage=Stage.LOADING),
        ModelPlacing(model_id="emoji-sd", components=parts),
        ModelLoaded(loaded=new),
    ):
        bench.worker.answers[job_id].put_nowait(report)
    told = [await changes.get() for _ in range(4)]
    assert [one.state for one in told] == [
        LoadedState.UNLOADED,
        LoadedState.LOADING,
        LoadedState.LOADING,
        LoadedState.READY,
    ]
    assert (told[1].components, told[2].components) == ((), parts)
    assert bench.loaded.get(old.id).load_time_s == 2
    # The limit of the load ends with its last report, not with the next stage.
    assert len(ended) == 2
    await bench.finish(job_id)
    assert bench.loaded.get(old.id).last_use_time_s > new.last_use_time_s


async def test_the_log_says_when_an_attempt_began_how_it_ended_and_how_long_it_took(bench: DispatchBench) -> None:
    begin_s = time.monotonic()
    with capture_logs() as lines:
        job_id = bench.submit()
        await bench.at_work(job_id)
        bench.die()
        bench.start_worker()
        await bench.finish(job_id)
        await bench.dispatcher.idle()
    most_s = time.monotonic() - begin_s
    told = [line for line in lines if line["event"] in ("job started", "attempt ended")]
    assert [(line.get("attempt"), line.get("state")) for line in told] == [
        (1, None),
        (None, "interrupted"),
        (2, None),
        (None, "succeeded"),
    ]
    assert all(0.0 <= line["took_s"] <= most_s + 0.001 for line in told[1::2])
    assert "reason" not in told[-1]


async def test_the_log_says_why_an_attempt_failed(bench: DispatchBench) -> None:
    with capture_logs() as lines:
        job_id = bench.submit()
        await bench.at_work(job_id)
        bench.worker.answers[job_id].put_nowait(
            RunFailed(reason=str(ErrorReason.MODEL_CORRUPT), message="a bad tensor", facts={}, receipt=Receipt())
        )
        await bench.until(job_id, JobState.FAILED)
        await bench.dispatcher.idle()
    (end,) = [line for line in lines if line["event"] == "attempt ended"]
    assert (end["state"], end["message"]) == ("failed", "a bad tensor")


async def test_a_changed_limit_counts_for_a_job_that_waits_and_for_one_that_runs(bench: DispatchBench) -> None:
    running, other = bench.submit(), bench.submit()
    await bench.at_work(running, other)
    waiting = bench.submit(priority=1)
    urgent = bench.submit(priority=1)
    bench.jobs.update(urgent, JobOptions(priority=3), ["priority"])
    bench.jobs.update(running, JobOptions(run_timeout_s=0.05), ["run_timeout"])
    ended = await bench.until(running, JobState.FAILED)
    assert ended.failure is not None
    await bench.at_work(urgent)
    assert bench.job(waiting).state is JobState.QUEUED, "the urgent one came first"
    bench.jobs.update(waiting, JobOptions(queue_timeout_s=0.05), ["queue_timeout"])
    late = await bench.until(waiting, JobState.FAILED)
    assert late.failure is not None


@pytest.mark.parametrize(
    ("problem", "reason", "says", "level"),
    [
        (RuntimeError("can't start new thread"), None, "", "warning"),
        (KeyError("x"), ErrorReason.INVARIANT_BROKEN, "its log has the details under the job id", "error"),
    ],
)
def test_an_error_that_nobody_foresaw_is_told_without_its_text(
    problem: Exception, reason: ErrorReason | None, says: str, level: str
) -> None:
    with capture_logs() as lines:
        failure = _failure_of(problem)
    assert [line["log_level"] for line in lines] == [level]
    assert says in failure.message
    assert (failure.reason is ErrorReason.INVARIANT_BROKEN) is (reason is not None)


async def test_previews_that_are_wanted_now_reach_a_running_generation_alone(bench: DispatchBench) -> None:
    job_id, waiting = bench.submit(), "job-none"
    await bench.at_work(job_id)
    wished = Previews(every_steps=3, max_edge_px=64)
    leave, leave_other = bench.wishes.join(job_id, wished), bench.wishes.join(waiting, wished)
    assert [name for name, _ in bench.worker.shown] == [job_id]
    assert bench.worker.shown[0][1].every_steps == 3
    leave()
    leave_other()
    assert [previews.every_steps for _, previews in bench.worker.shown] == [3, 0], "in the end as the job itself asks"
    await bench.finish(job_id)
    bench.wishes.join(job_id, wished)()
    assert len(bench.worker.shown) == 2


async def test_a_job_that_succeeds_ends_the_row_of_failures_of_its_device_and_one_that_fails_does_not(
    bench: DispatchBench,
) -> None:
    bench.devices.failed(DEVICE, InternalError("a bad kernel", ErrorReason.DRIVER_ERROR))
    failing = bench.submit()
    await bench.at_work(failing)
    refusal = RunFailed(reason=str(ErrorReason.MODEL_CORRUPT), message="a bad tensor", facts={}, receipt=Receipt())
    bench.worker.answers[failing].put_nowait(refusal)
    await bench.until(failing, JobState.FAILED)
    await bench.dispatcher.idle()
    assert bench.devices.get(DEVICE).health.consecutive == 1
    await bench.finish(bench.submit())
    await bench.dispatcher.idle()
    assert bench.devices.get(DEVICE).health.consecutive == 0


async def test_the_next_job_starts_when_one_has_left(bench: DispatchBench) -> None:
    running = [bench.submit(), bench.submit()]
    await bench.at_work(*running)
    waiting = bench.submit()
    await asyncio.sleep(0.01)
    assert bench.job(waiting).state is JobState.QUEUED
    await bench.finish(running[0])
    await bench.at_work(waiting)
