"""Cancelling: at every point of a job's life, with proof."""

import grpc
import pytest

from deviceops.common.v1 import job_event_pb2
from tests.server import asking
from tests.server.asking import LONG_STEPS, kind, kinds, picture
from tests.server.harness import RunningServer, running_server


def end_of(server: RunningServer, job_id: str) -> job_event_pb2.JobCancelled:
    update = asking.watch(server, job_id)[-1]
    assert kind(update) == "cancelled"
    return update.event.cancelled


def test_a_queued_job_ends_at_once_and_never_ran(server: RunningServer) -> None:
    with asking.occupied(server):
        job_id = asking.submit(server)
        answer = asking.cancel(server, job_id, "changed my mind")
        assert answer.state == job_event_pb2.JOB_STATE_CANCELLED
        seen = asking.watch(server, job_id)
    assert kinds(seen) == ["queued", "cancelled"]
    proof = seen[-1].event.cancelled
    assert (proof.stage, proof.cause, list(proof.freed)) == ("queued", "changed my mind", [])
    assert proof.receipt.attempts == 0
    assert proof.receipt.device_id == ""


def test_a_running_job_stops_within_its_stage_and_proves_it(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=LONG_STEPS))
    asking.wait_for_step(server, job_id)
    answer = asking.cancel(server, job_id, "enough")
    assert answer.state == job_event_pb2.JOB_STATE_CANCELLING
    proof = end_of(server, job_id)
    assert (proof.stage, proof.cause) == ("denoising", "enough")
    assert proof.latency.ToNanoseconds() > 0
    assert [freed.device_id for freed in proof.freed] == ["cpu"]
    assert 0 < proof.receipt.steps_executed < LONG_STEPS
    assert proof.receipt.attempts == 1
    assert "cancelling" in kinds(asking.watch(server, job_id))


def test_a_stopped_job_does_no_further_step(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=LONG_STEPS))
    asking.wait_for_step(server, job_id)
    asking.cancel(server, job_id)
    proof = end_of(server, job_id)
    # The device is free: another job has it to itself and the stopped one's journal is closed.
    assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"
    assert end_of(server, job_id) == proof


def test_pictures_that_were_ready_stay_readable(server: RunningServer) -> None:
    # Large enough that the others are still being decoded when the wish comes.
    generation = picture(steps=1, count=8)
    generation.width_px = generation.height_px = 256
    job_id = asking.submit(server, generation)
    call = asking.follow(server, job_id)
    asking.until(call, lambda update: kind(update) == "output_ready")
    asking.cancel(server, job_id)
    end = asking.journal_of(call)[-1]
    assert kind(end) == "cancelled"
    images = end.generation_result.images
    assert 0 < len(images) < 8
    for image in images:
        assert len(asking.blob(server, image.file.blob_id)) == image.file.size_bytes
    assert asking.job_of(server, job_id).generation_result.images == images


def test_cancelling_twice_is_the_same_as_once(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=LONG_STEPS))
    asking.wait_for_step(server, job_id)
    asking.cancel(server, job_id, "first")
    asking.cancel(server, job_id, "second")
    proof = end_of(server, job_id)
    assert proof.cause == "first"
    assert asking.cancel(server, job_id).state == job_event_pb2.JOB_STATE_CANCELLED
    assert kinds(asking.watch(server, job_id)).count("cancelling") == 1


def test_a_job_that_succeeded_cannot_be_cancelled(server: RunningServer) -> None:
    job_id = asking.submit(server)
    before = asking.watch(server, job_id)
    refusal = asking.refused(lambda: asking.cancel(server, job_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")
    assert refusal.facts["state"] == "succeeded"
    assert asking.durable(asking.watch(server, job_id)) == asking.durable(before)


def test_an_unknown_job_cannot_be_cancelled(server: RunningServer) -> None:
    refusal = asking.refused(lambda: asking.cancel(server, "job-none"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


@pytest.mark.parametrize("scope", ["CANCEL_SCOPE_AFTER_CURRENT", "CANCEL_SCOPE_PENDING_ONLY"])
def test_a_scope_that_is_not_served_is_refused_and_stops_nothing(server: RunningServer, scope: str) -> None:
    from deviceops.processing.v1 import job_pb2, processing_service_pb2

    job_id = asking.submit(server)
    request = processing_service_pb2.CancelJobRequest(job_id=job_id, scope=job_pb2.CancelScope.Value(scope))
    refusal = asking.refused(lambda: server.processing.CancelJob(request))
    assert refusal.fields == ["scope"]
    assert kind(asking.watch(server, job_id)[-1]) == "succeeded"


def test_a_job_that_waits_for_its_first_worker_and_one_that_loads_can_be_stopped() -> None:
    with running_server("--device", "cpu", held=True) as fresh:
        waiting = asking.submit(fresh, picture(steps=LONG_STEPS))
        assert asking.cancel(fresh, waiting).state == job_event_pb2.JOB_STATE_CANCELLED
        fresh.release()
        loading = asking.submit(fresh, picture(steps=LONG_STEPS))
        call = asking.follow(fresh, loading)
        asking.until(call, lambda update: kind(update) == "stage_started")
        asking.cancel(fresh, loading)
        end = asking.journal_of(call)[-1]
        assert kind(end) == "cancelled"
        # The load may be over before the wish reaches the worker; then it stops in what comes next.
        assert end.event.cancelled.stage in ("loading", "conditioning", "denoising")
        assert kind(asking.watch(fresh, asking.submit(fresh))[-1]) == "succeeded"
