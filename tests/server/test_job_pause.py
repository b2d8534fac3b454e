"""Pausing: at every point of a job's life; what continues makes the same picture."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from deviceops.common.v1 import job_event_pb2
from deviceops.inference.v1 import generation_pb2, sampling_pb2
from deviceops.memory.v1 import memory_service_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from tests.server import asking
from tests.server.asking import CALL_S, LONG_STEPS, kind, kinds
from tests.server.harness import RunningServer, running_server

STEPS = 40


def picture(sampler: str = "dpmpp_2m_sde", *, seed: int = 5, steps: int = STEPS) -> generation_pb2.Generation:
    """A picture that a test can pause: not over at once, and with noise and history between its steps."""
    return generation_pb2.Generation(
        prompt="a red apple",
        width_px=64,
        height_px=64,
        sampling=sampling_pb2.Sampling(steps=steps, seed=seed, sampler=sampler),
        determinism=generation_pb2.DETERMINISM_EXACT,
    )


def pause(server: RunningServer, job_id: str, cause: str = "") -> job_pb2.Job:
    request = processing_service_pb2.PauseJobRequest(job_id=job_id, cause=cause)
    return server.processing.PauseJob(request, timeout=CALL_S).job


def resume(server: RunningServer, job_id: str, cause: str = "") -> job_pb2.Job:
    request = processing_service_pb2.ResumeJobRequest(job_id=job_id, cause=cause)
    return server.processing.ResumeJob(request, timeout=CALL_S).job


def paused_at_a_step(server: RunningServer, job_id: str, cause: str = "") -> job_event_pb2.JobPaused:
    """Pause a job that denoises; returns the event of the pause."""
    asking.wait_for_step(server, job_id)
    assert pause(server, job_id, cause).state == job_event_pb2.JOB_STATE_PAUSING
    return until_paused(server, job_id)


def until_paused(server: RunningServer, job_id: str, after: int = 0) -> job_event_pb2.JobPaused:
    call = asking.follow(server, job_id, after)
    try:
        return asking.until(call, lambda update: kind(update) == "paused").event.paused
    finally:
        call.cancel()


def sha256_of(server: RunningServer, job_id: str) -> str:
    """The hash of the job's picture, at its end."""
    end = asking.watch(server, job_id)[-1]
    assert kind(end) == "succeeded", end
    (image,) = end.generation_result.images
    return image.file.sha256


def checkpoints(server: RunningServer, job_id: str) -> int:
    """Number of files that the job made. One of the same bytes that another job made before counts there."""
    found, request = 0, memory_service_pb2.ListBlobsRequest(page_size=1000)
    while True:
        page = server.memory.ListBlobs(request, timeout=CALL_S)
        found += sum(blob.origin_job_id == job_id for blob in page.blobs)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def test_a_job_that_denoises_pauses_at_a_step_gives_its_memory_back_and_ends_with_the_same_picture(
    server: RunningServer,
) -> None:
    whole = sha256_of(server, asking.submit(server, picture()))
    job_id = asking.submit(server, picture())
    told = paused_at_a_step(server, job_id, "lunch")
    assert (told.stage, told.cause) == ("denoising", "lunch")
    assert told.origin == job_event_pb2.JOB_CONTROL_ORIGIN_CALLER
    assert 0 < told.completed < STEPS
    job = asking.job_of(server, job_id)
    assert job.state == job_event_pb2.JOB_STATE_PAUSED
    assert job.HasField("checkpoint_time")
    assert checkpoints(server, job_id) == 1
    pool = server.memory.GetMemoryPool(memory_service_pb2.GetMemoryPoolRequest(memory_pool_id="host"), timeout=CALL_S)
    assert job_id not in [owner.id for owner in pool.memory_pool.owners if owner.live_bytes]
    assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"

    assert resume(server, job_id, "back").state in (job_event_pb2.JOB_STATE_QUEUED, job_event_pb2.JOB_STATE_RUNNING)
    assert sha256_of(server, job_id) == whole
    journal = asking.watch(server, job_id)
    (resumed,) = [update.event.resumed for update in journal if kind(update) == "resumed"]
    assert (resumed.from_step, resumed.cause) == (told.completed, "back")
    assert kinds(journal).count("started") == 2
    assert "degraded" not in kinds(journal)
    assert journal[-1].event.succeeded.receipt.steps_executed == STEPS
    # The checkpoint is gone; the picture is the one that the other job made first.
    assert checkpoints(server, job_id) == 0
    assert not asking.job_of(server, job_id).HasField("checkpoint_time")


def test_a_queued_job_pauses_at_once_and_waits_in_front_again_when_it_is_resumed(server: RunningServer) -> None:
    with asking.occupied(server):
        job_id, later = (asking.submit(server) for _ in range(2))
        assert pause(server, job_id).state == job_event_pb2.JOB_STATE_PAUSED
        assert resume(server, job_id).state == job_event_pb2.JOB_STATE_QUEUED
    seen = asking.watch(server, job_id)
    asking.watch(server, later)
    assert kinds(seen)[:4] == ["queued", "paused", "resumed", "started"]
    assert seen[1].event.paused.stage == "queued"
    started = [asking.job_of(server, name).start_time.ToNanoseconds() for name in (job_id, later)]
    assert started == sorted(started)


def test_pausing_and_resuming_twice_is_the_same_as_once(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=LONG_STEPS))
    asking.wait_for_step(server, job_id)
    pause(server, job_id, "first")
    pause(server, job_id, "second")
    assert until_paused(server, job_id).cause == "first"
    assert pause(server, job_id).state == job_event_pb2.JOB_STATE_PAUSED
    resume(server, job_id)
    assert resume(server, job_id).state in (job_event_pb2.JOB_STATE_QUEUED, job_event_pb2.JOB_STATE_RUNNING)
    asking.cancel(server, job_id)
    seen = kinds(asking.watch(server, job_id))
    assert [seen.count(name) for name in ("pausing", "paused", "resumed")] == [1, 1, 1]


def test_a_job_on_its_way_to_a_pause_is_resumed_when_it_stands(server: RunningServer) -> None:
    whole = sha256_of(server, asking.submit(server, picture()))
    job_id = asking.submit(server, picture())
    asking.wait_for_step(server, job_id)
    pause(server, job_id)
    resume(server, job_id)
    assert sha256_of(server, job_id) == whole


def test_a_paused_job_can_be_cancelled_and_keeps_its_checkpoint_until_it_is_deleted(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=LONG_STEPS, seed=4242))
    paused_at_a_step(server, job_id)
    assert asking.cancel(server, job_id, "enough").state == job_event_pb2.JOB_STATE_CANCELLED
    end = asking.watch(server, job_id)[-1]
    assert 0 < end.event.cancelled.receipt.steps_executed < LONG_STEPS
    assert checkpoints(server, job_id) == 1
    assert asking.delete(server, job_id) > 0
    assert checkpoints(server, job_id) == 0


def test_a_job_that_is_cancelled_on_its_way_to_a_pause_is_cancelled(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=LONG_STEPS))
    asking.wait_for_step(server, job_id)
    pause(server, job_id)
    asking.cancel(server, job_id)
    assert kind(asking.watch(server, job_id)[-1]) == "cancelled"


@pytest.mark.parametrize("call", [pause, resume])
def test_a_job_that_ended_can_be_neither_paused_nor_resumed(server: RunningServer, call: object) -> None:
    assert callable(call)
    job_id = asking.submit(server)
    asking.watch(server, job_id)
    refusal = asking.refused(lambda: call(server, job_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")
    assert refusal.facts["state"] == "succeeded"
    missing = asking.refused(lambda: call(server, "job-none"))
    assert missing.reason == "JOB_NOT_FOUND"


def test_paused_jobs_are_listed(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=LONG_STEPS))
    paused_at_a_step(server, job_id)
    wanted = processing_service_pb2.JobFilter(states=[job_event_pb2.JOB_STATE_PAUSED])
    request = processing_service_pb2.ListJobsRequest(filter=wanted)
    listed = server.processing.ListJobs(request, timeout=CALL_S).jobs
    assert job_id in [job.id for job in listed]
    asking.cancel(server, job_id)


def test_a_pause_does_not_count_for_the_time_that_a_job_may_wait(server: RunningServer) -> None:
    options = job_event_pb2.JobOptions(queue_timeout=Duration(seconds=1))
    with asking.occupied(server):
        paused, waiting = (asking.submit(server, options=options) for _ in range(2))
        pause(server, paused)
        assert kind(asking.watch(server, waiting)[-1]) == "failed"
        assert asking.job_of(server, paused).state == job_event_pb2.JOB_STATE_PAUSED
    resume(server, paused)
    assert kind(asking.watch(server, paused)[-1]) == "succeeded"


def test_a_load_pauses_and_the_picture_is_made_when_it_is_resumed() -> None:
    with running_server("--device", "cpu") as fresh:
        job_id = asking.submit(fresh, picture())
        call = asking.follow(fresh, job_id)
        asking.until(call, lambda update: kind(update) == "stage_started")
        pause(fresh, job_id)
        told = asking.until(call, lambda update: kind(update) == "paused").event.paused
        # The load may be over before the request reaches the worker; then it pauses in what comes next.
        assert told.stage in ("loading", "conditioning", "denoising")
        resume(fresh, job_id)
        assert kind(asking.journal_of(call)[-1]) == "succeeded"


def test_paused_jobs_outlive_the_server_and_end_with_the_same_pictures() -> None:
    samplers = ("heun", "dpmpp_2m_sde")
    with running_server("--device", "cpu") as server:
        whole = [sha256_of(server, asking.submit(server, picture(sampler))) for sampler in samplers]
        job_ids, kept = [], []
        for sampler in samplers:
            job_ids.append(asking.submit(server, picture(sampler)))
            kept.append(paused_at_a_step(server, job_ids[-1]).completed)
        server.kill()
        server.start()
        assert [asking.job_of(server, name).state for name in job_ids] == [job_event_pb2.JOB_STATE_PAUSED] * 2
        for job_id in job_ids:
            resume(server, job_id)
        assert [sha256_of(server, job_id) for job_id in job_ids] == whole
        journals = [asking.watch(server, job_id) for job_id in job_ids]
        assert [resumed_from(journal) for journal in journals] == [[step] for step in kept]
        assert [journal[-1].event.succeeded.receipt.steps_executed for journal in journals] == [STEPS] * 2


def resumed_from(journal: list[asking.Update]) -> list[int]:
    return [update.event.resumed.from_step for update in journal if kind(update) == "resumed"]
