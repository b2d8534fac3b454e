"""Submitting, listing and deleting jobs."""

import base64
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from deviceops.common.v1 import error_pb2, job_event_pb2, label_pb2
from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.model.v1 import model_work_pb2
from deviceops.processing.v1 import job_pb2, processing_service_pb2
from tests.server import asking
from tests.server.asking import kind, kinds, picture
from tests.server.harness import RunningServer, running_server

Filter = processing_service_pb2.JobFilter


def listed(server: RunningServer, size: int = 0, token: str = "", **conditions: Any) -> tuple[list[job_pb2.Job], str]:
    wanted = Filter(**conditions)
    request = processing_service_pb2.ListJobsRequest(page_size=size, page_token=token, filter=wanted)
    answer = server.processing.ListJobs(request)
    return list(answer.jobs), answer.next_page_token


def labelled(value: str) -> job_event_pb2.JobOptions:
    return job_event_pb2.JobOptions(labels=[label_pb2.Label(key="test", value=value)])


def test_the_same_request_id_is_one_job_and_one_run(server: RunningServer) -> None:
    first = asking.submit(server, request_id="twice")
    second = asking.submit(server, request_id="twice")
    assert first == second
    seen = asking.watch(server, first)
    assert kinds(seen).count("started") == 1
    assert asking.submit(server, request_id="twice") == first
    assert len(listed(server, request_id="twice")[0]) == 1


def test_a_door_with_a_known_request_id_joins_the_job(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(steps=3), request_id="joined")
    request = inference_service_pb2.GenerateRequest(generation=picture(steps=3), request_id="joined")
    joined = asking.journal_of(server.inference.Generate(request))
    assert joined[0].event.job_id == job_id
    assert kind(joined[-1]) == "succeeded"
    assert asking.job_of(server, job_id).state == job_event_pb2.JOB_STATE_SUCCEEDED


def joining(server: RunningServer, request_id: str, **options: Any) -> Any:
    request = inference_service_pb2.GenerateRequest(
        generation=picture(steps=asking.LONG_STEPS), request_id=request_id, **options
    )
    return server.inference.Generate(request, timeout=asking.CALL_S)


def test_a_job_is_cancelled_when_the_last_of_its_callers_has_left(server: RunningServer) -> None:
    first, second = joining(server, "both"), joining(server, "both")
    job_id = next(iter(first)).event.job_id
    assert next(iter(second)).event.job_id == job_id
    first.cancel()
    # Whoever stayed still sees it move.
    asking.until(second, asking.denoising)
    assert asking.job_of(server, job_id).state == job_event_pb2.JOB_STATE_RUNNING
    second.cancel()
    assert kind(asking.watch(server, job_id)[-1]) == "cancelled"


def test_a_caller_who_said_detached_keeps_it_going_for_all(server: RunningServer) -> None:
    first, second = joining(server, "kept"), joining(server, "kept", detached=True)
    job_id = next(iter(first)).event.job_id
    assert next(iter(second)).event.job_id == job_id
    second.cancel()
    first.cancel()
    asking.until(asking.follow(server, job_id), asking.denoising)
    assert asking.job_of(server, job_id).state == job_event_pb2.JOB_STATE_RUNNING
    asking.cancel(server, job_id)


def test_who_submits_the_same_without_following_keeps_it_going(server: RunningServer) -> None:
    door = joining(server, "kept-by-a-submission")
    job_id = next(door).event.job_id
    asked = picture(steps=asking.LONG_STEPS)
    assert asking.submit(server, asked, request_id="kept-by-a-submission") == job_id
    door.cancel()
    asking.wait_for_step(server, job_id)
    assert asking.cancel(server, job_id).state == job_event_pb2.JOB_STATE_CANCELLING
    assert kind(asking.watch(server, job_id)[-1]) == "cancelled"


def test_the_same_request_id_for_something_else_is_refused(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(seed=1), request_id="taken")
    refusal = asking.refused(lambda: asking.submit(server, picture(seed=2), request_id="taken"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert refusal.facts["job_id"] == job_id
    assert refusal.has(error_details_pb2.ResourceInfo())
    asking.watch(server, job_id)


def test_a_job_is_told_as_it_was_asked(server: RunningServer) -> None:
    options = job_event_pb2.JobOptions(
        priority=job_event_pb2.PRIORITY_HIGH,
        devices=job_event_pb2.DeviceSelector(device_ids=["cpu"]),
        labels=[label_pb2.Label(key="colour", value="red")],
        keep_for=Duration(seconds=3600),
        run_timeout=Duration(seconds=600),
    )
    job_id = asking.submit(server, picture(seed=77), options, request_id="as-asked")
    asking.watch(server, job_id)
    job = asking.job_of(server, job_id)
    assert job.options == options
    assert job.spec.generation.prompt == "a red apple"
    assert job.spec.generation.sampling.seed == 77
    assert (job.request_id, job.detached, job.kind) == ("as-asked", True, job_pb2.JOB_KIND_GENERATION)
    assert job.expire_time.ToSeconds() - job.end_time.ToSeconds() in (3599, 3600, 3601)
    assert job.create_time.ToNanoseconds() <= job.start_time.ToNanoseconds() <= job.end_time.ToNanoseconds()
    assert job.device_id == "cpu"
    assert len(job.generation_result.images) == 1


def test_validate_only_stores_nothing(server: RunningServer) -> None:
    spec = job_pb2.JobSpec(generation=picture())
    request = processing_service_pb2.SubmitJobRequest(
        spec=spec, options=labelled("validated"), validate_only=True, request_id="only-checked"
    )
    answer = server.processing.SubmitJob(request)
    assert not answer.HasField("job")
    assert not answer.findings
    assert listed(server, labels=[label_pb2.Label(key="test", value="validated")]) == ([], "")
    assert listed(server, request_id="only-checked") == ([], "")


def test_validate_only_tells_everything_wrong_as_findings(server: RunningServer) -> None:
    wrong = generation_pb2.Generation(
        prompt="x", width_px=7, height_px=64, sampling=sampling_pb2.Sampling(steps=0), safety_policy_id="strict"
    )
    request = processing_service_pb2.SubmitJobRequest(spec=job_pb2.JobSpec(generation=wrong), validate_only=True)
    answer = server.processing.SubmitJob(request)
    assert not answer.HasField("job")
    assert {finding.field for finding in answer.findings} == {
        "spec.generation.width_px",
        "spec.generation.sampling.steps",
        "spec.generation.safety_policy_id",
    }
    assert {finding.severity for finding in answer.findings} == {error_pb2.SEVERITY_ERROR}


def test_validate_only_names_an_unknown_model(server: RunningServer) -> None:
    asked = generation_pb2.Generation(prompt="x", model_id="emoji-st")
    request = processing_service_pb2.SubmitJobRequest(spec=job_pb2.JobSpec(generation=asked), validate_only=True)
    (finding,) = server.processing.SubmitJob(request).findings
    assert finding.reason == error_pb2.ERROR_REASON_MODEL_NOT_FOUND
    assert "emoji-sd" in finding.message


def test_a_model_load_and_a_scan_are_jobs_too(server: RunningServer) -> None:
    load = job_pb2.JobSpec(model_load=model_work_pb2.ModelLoad(model_id="emoji-sd"))
    scan = job_pb2.JobSpec(model_scan=model_work_pb2.ModelScan())
    for spec, result in ((load, "loaded_model"), (scan, "model_scan_report")):
        request = processing_service_pb2.SubmitJobRequest(spec=spec)
        end = asking.watch(server, server.processing.SubmitJob(request).job.id)[-1]
        assert kind(end) == "succeeded"
        assert end.WhichOneof("output") == result


def test_a_spec_that_says_nothing_is_refused(server: RunningServer) -> None:
    request = processing_service_pb2.SubmitJobRequest()
    refusal = asking.refused(lambda: server.processing.SubmitJob(request))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["spec.work"])


def test_work_that_is_not_built_is_refused_by_name(server: RunningServer) -> None:
    spec = job_pb2.JobSpec()
    spec.batch.SetInParent()
    refusal = asking.refused(lambda: server.processing.SubmitJob(processing_service_pb2.SubmitJobRequest(spec=spec)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")
    assert refusal.fields == ["spec.batch"]


def test_a_running_job_cannot_be_deleted(server: RunningServer) -> None:
    with asking.occupied(server, 1) as (job_id,):
        refusal = asking.refused(lambda: asking.delete(server, job_id))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")
        assert refusal.facts == {"job_id": job_id, "state": "running"}
        assert refusal.has(error_details_pb2.PreconditionFailure())


def test_an_ended_job_goes_with_its_picture(server: RunningServer) -> None:
    job_id = asking.submit(server, picture(seed=4001))
    image = asking.watch(server, job_id)[-1].generation_result.images[0]
    assert asking.delete(server, job_id) == image.file.size_bytes
    assert asking.refused(lambda: asking.job_of(server, job_id)).reason == "JOB_NOT_FOUND"
    assert asking.refused(lambda: asking.follow(server, job_id)).reason == "JOB_NOT_FOUND"
    assert asking.refused(lambda: asking.delete(server, job_id)).reason == "JOB_NOT_FOUND"
    assert asking.refused(lambda: asking.blob(server, image.file.blob_id)).reason == "BLOB_NOT_FOUND"


def test_a_picture_that_another_job_made_too_stays(server: RunningServer) -> None:
    first, second = (asking.submit(server, asking.exact_picture(seed=4002)) for _ in range(2))
    images = [asking.watch(server, job_id)[-1].generation_result.images[0] for job_id in (first, second)]
    assert images[0].file.blob_id == images[1].file.blob_id
    before = asking.blob(server, images[0].file.blob_id)
    assert asking.delete(server, first) == 0
    assert asking.blob(server, images[1].file.blob_id) == before
    assert asking.delete(server, second) == len(before)
    assert asking.refused(lambda: asking.blob(server, images[0].file.blob_id)).reason == "BLOB_NOT_FOUND"


def test_a_jobs_etag_changes_with_its_state_and_not_with_its_progress(server: RunningServer) -> None:
    with asking.occupied(server, 1) as (job_id,):
        begin = asking.job_of(server, job_id)
        asking.until(asking.follow(server, job_id, begin.last_sequence), asking.denoising)
        later = asking.job_of(server, job_id)
        assert later.last_sequence > begin.last_sequence
        assert later.etag == begin.etag
    assert asking.job_of(server, job_id).etag != begin.etag


def test_deleting_with_an_old_etag_is_refused(server: RunningServer) -> None:
    job_id = asking.submit(server)
    asking.watch(server, job_id)
    request = processing_service_pb2.DeleteJobRequest(job_id=job_id, etag="old")
    refusal = asking.refused(lambda: server.processing.DeleteJob(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    request.etag = asking.job_of(server, job_id).etag
    server.processing.DeleteJob(request)


@pytest.fixture(scope="module")
def three(server: RunningServer) -> list[str]:
    """Three jobs of this test alone, oldest first: two succeeded, the last cancelled."""
    with asking.occupied(server):
        made = [asking.submit(server, picture(seed=n), labelled("three")) for n in range(3)]
        asking.cancel(server, made[2])
    for job_id in made:
        asking.watch(server, job_id)
    return made


LABEL = [label_pb2.Label(key="test", value="three")]


def test_pages_are_newest_first_and_meet(server: RunningServer, three: list[str]) -> None:
    found: list[str] = []
    token = ""
    for _ in range(4):
        jobs, token = listed(server, 2, token, labels=LABEL)
        assert len(jobs) <= 2
        found += [job.id for job in jobs]
        if not token:
            break
    assert found == list(reversed(three))


def test_a_list_tells_neither_content_nor_result(server: RunningServer, three: list[str]) -> None:
    for job in listed(server, labels=LABEL)[0]:
        assert job.spec.WhichOneof("work") == "generation"
        assert job.spec.generation == generation_pb2.Generation()
        assert job.WhichOneof("result") is None
        assert job.state in (job_event_pb2.JOB_STATE_SUCCEEDED, job_event_pb2.JOB_STATE_CANCELLED)


def test_filters_narrow(server: RunningServer, three: list[str]) -> None:
    def ids(**conditions: Any) -> list[str]:
        return [job.id for job in listed(server, labels=LABEL, **conditions)[0]]

    assert ids(states=[job_event_pb2.JOB_STATE_CANCELLED]) == [three[2]]
    assert ids(kinds=[job_pb2.JOB_KIND_MODEL_SCAN]) == []
    assert ids(kinds=[job_pb2.JOB_KIND_GENERATION, job_pb2.JOB_KIND_MODEL_SCAN]) == list(reversed(three))
    assert ids(device_id="cpu") == [three[1], three[0]]
    assert ids(session_id="none") == []
    middle: Timestamp = asking.job_of(server, three[1]).create_time
    assert ids(created_after=middle) == [three[2], three[1]]
    assert ids(created_before=middle) == [three[0]]


@pytest.mark.parametrize(
    "token", ["nonsense!", "AAAA", base64.urlsafe_b64encode(b"\xff" * 8).decode(), base64.b64encode(b"x" * 40).decode()]
)
def test_a_token_of_somebody_else_is_refused(server: RunningServer, token: str) -> None:
    refusal = asking.refused(lambda: listed(server, token=token))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])


@pytest.mark.parametrize("size", [-1, 1001])
def test_a_page_size_out_of_range_is_refused(server: RunningServer, size: int) -> None:
    refusal = asking.refused(lambda: listed(server, size))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_size"])


def test_a_job_that_waits_too_long_ends_with_queue_timeout(server: RunningServer) -> None:
    with asking.occupied(server):
        job_id = asking.submit(server, options=job_event_pb2.JobOptions(queue_timeout=Duration(nanos=200_000_000)))
        seen = asking.watch(server, job_id)
    assert kinds(seen) == ["queued", "failed"]
    failure = seen[-1].event.failed.failure
    assert failure.reason == error_pb2.ERROR_REASON_QUEUE_TIMEOUT
    assert failure.status_code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert {fact.name: fact.value for fact in failure.facts} == {"queue_timeout_s": "0.2"}


def test_a_queue_timeout_ends_with_the_waiting(server: RunningServer) -> None:
    options = job_event_pb2.JobOptions(queue_timeout=Duration(seconds=1))
    job_id = asking.submit(server, picture(steps=40), options)
    assert kind(asking.watch(server, job_id)[-1]) == "succeeded"


def test_a_job_that_runs_too_long_ends_with_run_timeout_and_frees_the_device(server: RunningServer) -> None:
    options = job_event_pb2.JobOptions(run_timeout=Duration(nanos=300_000_000))
    seen = asking.watch(server, asking.submit(server, picture(steps=asking.LONG_STEPS), options))
    assert kind(seen[-1]) == "failed"
    failure = seen[-1].event.failed.failure
    assert failure.reason == error_pb2.ERROR_REASON_RUN_TIMEOUT
    assert failure.status_code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert failure.retryable
    # The engine stopped, and told what it had spent by then.
    assert "denoising" in [stage.stage for stage in seen[-1].event.failed.receipt.stages]
    assert kind(asking.watch(server, asking.submit(server))[-1]) == "succeeded"


def test_the_more_urgent_job_starts_first(server: RunningServer) -> None:
    urgent = job_event_pb2.JobOptions(priority=job_event_pb2.PRIORITY_CRITICAL)
    with asking.occupied(server) as (first, _):
        patient = asking.submit(server, picture(seed=1))
        hurried = asking.submit(server, picture(seed=2), urgent)
        asking.cancel(server, first)
        asking.watch(server, hurried)
    asking.watch(server, patient)
    starts = [asking.job_of(server, job_id).start_time.ToNanoseconds() for job_id in (hurried, patient)]
    assert starts == sorted(starts)


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    settings = {"DEVICEOPS_QUEUE_CAPACITY": "2"}
    with running_server("--device", "cpu", environment=settings, held=True) as small:
        # No worker is ready, so nothing leaves the queue.
        waiting = [asking.submit(small) for _ in range(2)]
        refusal = asking.refused(lambda: asking.submit(small))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert refusal.has(error_details_pb2.RetryInfo())
        assert refusal.has(error_details_pb2.QuotaFailure())
        asking.cancel(small, waiting[0])
        asking.submit(small)
