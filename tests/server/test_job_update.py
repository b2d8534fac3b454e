"""UpdateJob and GetQueue: what can be changed of a job and when, and what the queue says of it."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from deviceops.common.v1 import job_event_pb2, label_pb2
from deviceops.processing.v1 import job_pb2, job_queue_pb2, processing_service_pb2
from tests.server import asking
from tests.server.asking import picture
from tests.server.harness import RunningServer

HIGH, LOW = job_event_pb2.PRIORITY_HIGH, job_event_pb2.PRIORITY_LOW
Options = job_event_pb2.JobOptions


def update(server: RunningServer, job_id: str, options: Options, *paths: str, etag: str = "") -> job_pb2.Job:
    mask = FieldMask(paths=list(paths))
    request = processing_service_pb2.UpdateJobRequest(job_id=job_id, options=options, update_mask=mask, etag=etag)
    return server.processing.UpdateJob(request, timeout=asking.CALL_S).job


def queue(server: RunningServer) -> job_queue_pb2.JobQueue:
    return server.processing.GetQueue(processing_service_pb2.GetQueueRequest(), timeout=asking.CALL_S).queue


def listed(server: RunningServer, **label: str) -> list[str]:
    labels = [label_pb2.Label(key=key, value=value) for key, value in label.items()]
    wanted = processing_service_pb2.JobFilter(labels=labels)
    request = processing_service_pb2.ListJobsRequest(filter=wanted, page_size=1000)
    return [job.id for job in server.processing.ListJobs(request, timeout=asking.CALL_S).jobs]


def test_a_waiting_job_moves_with_its_priority_and_the_queue_tells_it(server: RunningServer) -> None:
    with asking.occupied(server) as blockers:
        first, second = (asking.submit(server, picture(seed=seed)) for seed in (61, 62))
        (lane,) = [one for one in queue(server).lanes if one.device_id == "cpu"]
        assert sorted(lane.running_job_ids) == sorted(blockers)
        assert (lane.free_slots, [depth.queued_count for depth in lane.depths]) == (0, [2])
        assert lane.depths[0].oldest_wait.ToNanoseconds() > 0
        changed = update(server, second, Options(priority=HIGH), "priority")
        assert changed.options.priority == HIGH
        assert [asking.job_of(server, one).waits_for.ahead_count for one in (second, first)] == [0, 1]
        told = queue(server)
        (lane,) = [one for one in told.lanes if one.device_id == "cpu"]
        assert [(depth.priority, depth.queued_count) for depth in lane.depths] == [
            (HIGH, 1),
            (job_event_pb2.PRIORITY_NORMAL, 1),
        ]
        (share,) = told.shares
        assert (share.session_id, share.queued_count, share.running_count) == ("", 2, 2)
        assert (told.queued_count, told.capacity >= 2) == (2, True)
        # Down again: an entry of the higher priority must not stay.
        update(server, second, Options(priority=LOW), "priority")
        assert [asking.job_of(server, one).waits_for.ahead_count for one in (first, second)] == [0, 1]
        for job_id in (first, second):
            asking.cancel(server, job_id)
    assert queue(server).queued_count == 0


def test_a_new_queue_timeout_holds_for_a_waiting_job(server: RunningServer) -> None:
    with asking.occupied(server):
        job_id = asking.submit(server, picture(seed=63))
        update(server, job_id, Options(queue_timeout=Duration(nanos=50_000_000)), "queue_timeout")
        last = asking.watch(server, job_id)[-1]
    assert asking.kind(last) == "failed"
    assert last.event.failed.failure.message.startswith("waited longer than its queue_timeout")


def test_a_new_run_timeout_holds_for_a_running_job(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=asking.LONG_STEPS, seed=64))
    asking.wait_for_step(server, job_id)
    update(server, job_id, Options(run_timeout=Duration(nanos=1_000_000)), "run_timeout")
    last = asking.watch(server, job_id)[-1]
    assert "run_timeout" in last.event.failed.failure.message


def test_an_ended_job_takes_labels_and_its_keeping_time_alone(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(seed=65))
    asking.watch(server, job_id)
    marked = Options(labels=[label_pb2.Label(key="kept", value="yes")], keep_for=Duration(seconds=7200))
    before = asking.job_of(server, job_id)
    after = update(server, job_id, marked, "labels", "keep_for", etag=before.etag)
    assert (after.options.keep_for.seconds, after.etag != before.etag) == (7200, True)
    assert listed(server, kept="yes") == [job_id]
    assert update(server, job_id, marked, "labels", "keep_for") == after
    update(server, job_id, Options(), "labels")
    assert listed(server, kept="yes") == []
    refusal = asking.refused(lambda: update(server, job_id, Options(priority=HIGH), "priority"))
    assert (refusal.reason, refusal.facts["state"]) == ("ILLEGAL_STATE", "succeeded")
    refusal = asking.refused(lambda: update(server, job_id, marked, "labels", etag=before.etag))
    assert refusal.reason == "ETAG_MISMATCH"


@pytest.mark.parametrize("paths", [(), ("devices",), ("labels", "session_id")])
def test_anything_else_is_refused_by_the_mask(server: RunningServer, paths: tuple[str, ...]) -> None:
    job_id = asking.submit(server, picture(seed=66))
    refusal = asking.refused(lambda: update(server, job_id, Options(), *paths))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["update_mask"])
    assert "keep_for" in refusal.message
    asking.watch(server, job_id)


def test_a_job_that_does_not_exist_is_not_found(server: RunningServer) -> None:
    refusal = asking.refused(lambda: update(server, "job-none", Options(priority=HIGH), "priority"))
    assert refusal.reason == "JOB_NOT_FOUND"
