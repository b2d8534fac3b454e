"""DeleteByLabels: what has the labels goes, with all that it made; the rest stays."""

import uuid
from collections.abc import Sequence

import grpc

from deviceops.common.v1 import job_event_pb2, label_pb2
from deviceops.memory.v1 import blob_pb2, memory_service_pb2
from deviceops.processing.v1 import processing_service_pb2
from tests.server import asking
from tests.server.asking import CALL_S, LONG_STEPS, exact_picture
from tests.server.harness import RunningServer

Answer = processing_service_pb2.DeleteByLabelsResponse


def labels(**values: str) -> list[label_pb2.Label]:
    return [label_pb2.Label(key=key, value=value) for key, value in values.items()]


def somebody() -> str:
    """A label's value that no other test uses."""
    return uuid.uuid4().hex


def delete(
    server: RunningServer, wanted: Sequence[label_pb2.Label], *, dry: bool = False, request_id: str = ""
) -> Answer:
    request = processing_service_pb2.DeleteByLabelsRequest(labels=wanted, validate_only=dry, request_id=request_id)
    return server.processing.DeleteByLabels(request, timeout=CALL_S)


def job(server: RunningServer, steps: int, seed: int, /, **marks: str) -> str:
    options = job_event_pb2.JobOptions(labels=labels(**marks))
    return asking.submit(server, exact_picture(steps=steps, seed=seed), options)


def ended(server: RunningServer, seed: int, **marks: str) -> str:
    job_id = job(server, 1, seed, **marks)
    asking.watch(server, job_id)
    return job_id


def upload(server: RunningServer, size: int, **marks: str) -> str:
    spec = blob_pb2.BlobSpec(size_bytes=size, fill_byte=7, labels=labels(**marks))
    return server.memory.CreateBlob(memory_service_pb2.CreateBlobRequest(blob_spec=spec), timeout=CALL_S).blob.id


def picture_bytes(server: RunningServer, job_id: str) -> int:
    return sum(image.file.size_bytes for image in asking.job_of(server, job_id).generation_result.images)


def is_there(server: RunningServer, job_id: str) -> bool:
    request = processing_service_pb2.ListJobsRequest(page_size=1000)
    return job_id in {one.id for one in server.processing.ListJobs(request, timeout=CALL_S).jobs}


def test_a_dry_run_tells_what_then_goes_and_nothing_else_does(server: RunningServer) -> None:
    who = somebody()
    first, second = ended(server, 901, person=who), ended(server, 902, person=who, draft="yes")
    other = ended(server, 903, person=somebody())
    mine, others = upload(server, 1000, person=who), upload(server, 1000, person=somebody())
    image_id = asking.job_of(server, first).generation_result.images[0].file.blob_id
    size = picture_bytes(server, first) + picture_bytes(server, second) + 1000
    expected = Answer(
        deleted_job_count=2,
        deleted_job_ids=[second, first],
        deleted_blob_count=1,
        deleted_blob_ids=[mine],
        freed_bytes=size,
    )
    assert delete(server, labels(person=who), dry=True) == expected
    assert is_there(server, first)
    assert delete(server, labels(person=who)) == expected
    for blob_id in (mine, image_id):
        request = memory_service_pb2.GetBlobRequest(blob_id=blob_id)
        assert asking.refused(lambda request=request: server.memory.GetBlob(request)).reason == "BLOB_NOT_FOUND"
    assert not is_there(server, first)
    assert is_there(server, other)
    assert server.memory.GetBlob(memory_service_pb2.GetBlobRequest(blob_id=others)).blob.id == others
    assert delete(server, labels(person=who)) == Answer()


def test_all_labels_must_be_there_and_an_empty_value_stands_for_any(server: RunningServer) -> None:
    who = somebody()
    plain, draft = ended(server, 911, person=who), ended(server, 912, person=who, draft="yes")
    assert list(delete(server, labels(person=who, draft="no")).deleted_job_ids) == []
    wanted = labels(person=who, draft="")
    listed = processing_service_pb2.ListJobsRequest(filter=processing_service_pb2.JobFilter(labels=wanted))
    assert [one.id for one in server.processing.ListJobs(listed).jobs] == [draft]
    assert list(delete(server, wanted).deleted_job_ids) == [draft]
    assert list(delete(server, labels(person=who)).deleted_job_ids) == [plain]


def test_a_job_that_has_not_ended_is_named_and_left_alone(server: RunningServer) -> None:
    who = somebody()
    job_id = job(server, LONG_STEPS, 1, person=who)
    for dry in (True, False):
        assert delete(server, labels(person=who), dry=dry) == Answer(skipped_job_count=1, skipped_job_ids=[job_id])
    asking.cancel(server, job_id)
    asking.watch(server, job_id)
    assert delete(server, labels(person=who)).deleted_job_count == 1


def test_a_picture_that_another_job_made_too_stays(server: RunningServer) -> None:
    who = somebody()
    first, second = ended(server, 921, person=who), ended(server, 921)
    (image,) = asking.job_of(server, second).generation_result.images
    for dry in (True, False):
        assert delete(server, labels(person=who), dry=dry) == Answer(deleted_job_count=1, deleted_job_ids=[first])
    assert len(asking.blob(server, image.file.blob_id)) == image.file.size_bytes


def test_two_jobs_that_made_the_same_picture_free_it_once(server: RunningServer) -> None:
    who = somebody()
    first, second = ended(server, 931, person=who), ended(server, 931, person=who)
    size = picture_bytes(server, first)
    assert size > 0
    for dry in (True, False):
        told = delete(server, labels(person=who), dry=dry)
        assert (list(told.deleted_job_ids), told.freed_bytes) == ([second, first], size)


def test_a_blob_that_is_read_goes_with_its_reader(server: RunningServer) -> None:
    who = somebody()
    name = upload(server, 64 << 20, person=who)
    read = server.memory.ReadBlob(memory_service_pb2.ReadBlobRequest(blob_id=name), timeout=CALL_S)
    next(read)
    for dry in (True, False):
        told = delete(server, labels(person=who), dry=dry)
        assert (told.deleted_blob_count, told.deferred_blob_count, told.freed_bytes) == (1, 1, 0)
    assert sum(len(part.data) for part in read) > 0
    assert delete(server, labels(person=who)) == Answer()


def test_the_same_request_id_gives_the_same_answer_and_deletes_nothing_more(server: RunningServer) -> None:
    who, request_id = somebody(), somebody()
    ended(server, 941, person=who)
    told = delete(server, labels(person=who), request_id=request_id)
    later = ended(server, 942, person=who)
    assert delete(server, labels(person=who), request_id=request_id) == told
    assert is_there(server, later)
    refusal = asking.refused(lambda: delete(server, labels(person=somebody()), request_id=request_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


def test_no_label_at_all_is_refused(server: RunningServer) -> None:
    refusal = asking.refused(lambda: delete(server, []))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["labels"])


def test_a_key_twice_is_refused(server: RunningServer) -> None:
    refusal = asking.refused(lambda: delete(server, [*labels(person="a"), *labels(person="b")]))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["labels"])
