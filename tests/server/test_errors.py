"""Errors at the edge: one code for each reason, the standard details, and never the text of an unexpected exception."""

import errno
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from deviceops.common.v1 import domain_pb2, error_pb2
from deviceops.processing.v1 import processing_service_pb2
from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub
from domains import errors
from domains.errors import FAMILY_OF, DeviceOpsError, ErrorReason, InvalidRequest, Violation
from domains.failure import Failure
from domains.reasons import NATURE_OF, Domain
from server import convert
from server.errors import CODE_OF, AnsweringErrors, code_of, status_of
from server.register import register

SECRET = "/home/somebody/secret-path"


def test_every_reason_has_one_code_and_every_family_its_own() -> None:
    assert set(CODE_OF) == set(DeviceOpsError.__subclasses__())
    assert len(set(CODE_OF.values())) == len(CODE_OF)
    for reason in ErrorReason:
        assert code_of(reason) is CODE_OF[FAMILY_OF[reason]]


@pytest.mark.parametrize("reason", ErrorReason)
def test_every_reason_has_its_number_in_the_contract(reason: ErrorReason) -> None:
    assert convert.to_reason(reason) > 0


@pytest.mark.parametrize("reason", ErrorReason)
def test_every_status_carries_reason_and_facts(reason: ErrorReason) -> None:
    family = FAMILY_OF[reason]
    error = (
        InvalidRequest([Violation(field="a.b", message="is wrong")], reason, size_bytes=5)
        if family is InvalidRequest
        else family("what, limit, remedy", reason, size_bytes=5)
    )
    status = status_of(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (reason.value, "deviceops", {"size_bytes": "5"})
    assert status.code == code_of(reason).value[0]


def later() -> DeviceOpsError:
    return errors.ResourceExhausted("no", retry_after_s=1.5)


DETAILS = [
    (InvalidRequest([Violation(field="a", message="b")]), error_details_pb2.BadRequest()),
    (errors.NotFound("no", job_id="job-1"), error_details_pb2.ResourceInfo()),
    (errors.AlreadyExists("no", job_id="job-1"), error_details_pb2.ResourceInfo()),
    (errors.FailedPrecondition("no", state="running"), error_details_pb2.PreconditionFailure()),
    (errors.ResourceExhausted("no"), error_details_pb2.QuotaFailure()),
    (later(), error_details_pb2.RetryInfo()),
]


@pytest.mark.parametrize(("error", "detail"), DETAILS, ids=[type(detail).__name__ for _, detail in DETAILS])
def test_the_standard_detail_of_a_family_comes_along(error: DeviceOpsError, detail: object) -> None:
    descriptor = detail.DESCRIPTOR  # pyright: ignore[reportAttributeAccessIssue]  # a message
    assert any(packed.Is(descriptor) for packed in status_of(error).details)


def test_the_time_to_wait_is_told_to_the_nanosecond() -> None:
    retry = error_details_pb2.RetryInfo()
    assert any(packed.Unpack(retry) for packed in status_of(later()).details)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 500_000_000)


SYSTEM: dict[str, tuple[Exception, ErrorReason, str]] = {
    "descriptors": (
        OSError(errno.EMFILE, "Too many open files"),
        ErrorReason.QUOTA_EXCEEDED,
        "no file descriptor is left",
    ),
    "memory": (MemoryError(), ErrorReason.HOST_OUT_OF_MEMORY, "no more memory"),
    "call": (SystemError("error return without exception set"), ErrorReason.HOST_OUT_OF_MEMORY, "no more memory"),
    "mapped": (OSError(errno.ENOMEM, "Cannot allocate"), ErrorReason.HOST_OUT_OF_MEMORY, "no more memory"),
    "threads": (RuntimeError("can't start new thread"), ErrorReason.QUOTA_EXCEEDED, "no more processes or threads"),
    "processes": (BlockingIOError(errno.EAGAIN, "Try again"), ErrorReason.QUOTA_EXCEEDED, "no more processes"),
    "full": (OSError(errno.ENOSPC, "No space", SECRET), ErrorReason.STORAGE_FULL, "is full"),
    "failing": (OSError(errno.EIO, "Input/output error", SECRET), ErrorReason.STORAGE_FAILED, "returned an error"),
}
"""What an exception that nothing has answered says of the system: the reason and the words that a caller gets."""


class Broken:
    """A servicer with bugs, and one refusal in mid-stream."""

    async def GetJob(self, request: object, context: object) -> processing_service_pb2.GetJobResponse:
        raise OSError(f"cannot open {SECRET}")

    async def WatchJob(
        self, request: object, context: object
    ) -> AsyncIterator[processing_service_pb2.WatchJobResponse]:
        yield processing_service_pb2.WatchJobResponse()
        raise ValueError(SECRET)

    async def DeleteJob(
        self, request: processing_service_pb2.DeleteJobRequest, context: object
    ) -> processing_service_pb2.DeleteJobResponse:
        raise SYSTEM[request.job_id][0]

    async def CancelJob(self, request: object, context: object) -> processing_service_pb2.CancelJobResponse:
        raise errors.NotFound("there is no job 'x'", ErrorReason.JOB_NOT_FOUND, job_id="x")


@pytest.fixture
async def broken() -> AsyncIterator[Any]:
    server = grpc.aio.server()
    register(AnsweringErrors(server), processing_service_pb2.DESCRIPTOR.services_by_name["ProcessingService"], Broken())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ProcessingServiceStub(channel)
    await server.stop(None)


async def test_the_text_of_an_unexpected_exception_is_never_sent(broken: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await broken.GetJob(processing_service_pb2.GetJobRequest())
    assert told.value.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in str(told.value)
    assert SECRET not in str(told.value.trailing_metadata())
    assert "its log has the details" in str(told.value.details())


async def test_nor_in_the_middle_of_a_stream(broken: Any) -> None:
    stream = aiter(broken.WatchJob(processing_service_pb2.WatchJobRequest()))
    await anext(stream)
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await anext(stream)
    assert told.value.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in str(told.value)


@pytest.mark.parametrize("name", SYSTEM)
async def test_what_the_system_lacks_is_no_fault_of_the_server(broken: Any, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await broken.DeleteJob(processing_service_pb2.DeleteJobRequest(job_id=name))
    _, reason, said = SYSTEM[name]
    assert told.value.code().value == code_of(reason).value
    assert said in str(told.value.details())
    assert reason in str(told.value.trailing_metadata())
    assert SECRET not in str(told.value)


async def test_our_own_errors_pass_with_their_words(broken: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await broken.CancelJob(processing_service_pb2.CancelJobRequest())
    assert told.value.code() is grpc.StatusCode.NOT_FOUND
    assert told.value.details() == "there is no job 'x'"


async def test_a_method_that_a_servicer_lacks_is_unimplemented(broken: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await broken.SubmitJob(processing_service_pb2.SubmitJobRequest())
    assert told.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "SubmitJob" in str(told.value.details())


@pytest.mark.parametrize("family", [errors.NotFound, errors.FailedPrecondition, errors.ResourceExhausted])
def test_a_status_fits_into_trailers_however_long_its_texts(family: type[DeviceOpsError]) -> None:
    long = "x" * 100_000
    status = status_of(family(f"there is no {long}", thing=long))
    assert status.ByteSize() < 5000
    assert status.message.startswith("there is no xxx")


def test_many_violations_fit_too() -> None:
    status = status_of(InvalidRequest([Violation(field=f"f{n}" * 50, message="y" * 1000) for n in range(1000)]))
    assert status.ByteSize() < 5000


def test_a_failure_says_only_what_is_known() -> None:
    plain = convert.to_failure(Failure(reason=ErrorReason.RUN_TIMEOUT, message="too long"), 1.0)
    assert plain.root_cause == plain.reason
    assert plain.state_consistent
    assert not plain.affected_ids
    assert not plain.actions_taken
    told = Failure(
        reason=ErrorReason.DEVICE_LOST,
        message="died",
        facts={"attempts": "3", "device_id": "cpu", "model_id": ""},
        root_cause=ErrorReason.DRIVER_ERROR,
        actions_taken=("worker restarted",),
        state_consistent=False,
    )
    full = convert.to_failure(told, 1.0)
    assert full.root_cause == convert.to_reason(ErrorReason.DRIVER_ERROR)
    assert (full.domain, full.severity) == (domain_pb2.DOMAIN_DEVICE, error_pb2.SEVERITY_CRITICAL)
    assert full.retryable
    assert list(full.affected_ids) == ["cpu"]
    assert list(full.actions_taken) == ["worker restarted"]
    assert not full.state_consistent


def test_a_failure_belongs_to_its_reasons_domain_or_else_to_the_works() -> None:
    loss = convert.to_failure(Failure(reason=ErrorReason.DEVICE_LOST, message=""), 1.0, Domain.INFERENCE)
    refusal = convert.to_failure(Failure(reason=ErrorReason.INVALID_FIELD, message=""), 1.0, Domain.INFERENCE)
    assert (loss.domain, refusal.domain) == (domain_pb2.DOMAIN_DEVICE, domain_pb2.DOMAIN_INFERENCE)
    assert (refusal.severity, refusal.retryable) == (error_pb2.SEVERITY_ERROR, False)


@pytest.mark.parametrize("reason", ErrorReason)
def test_a_status_tells_when_to_try_again_only_where_waiting_can_help(reason: ErrorReason) -> None:
    class Told(DeviceOpsError):
        retry_after_s = 5.0

    for facts, can_help in (({}, NATURE_OF[reason].retryable), ({"needed_bytes": 10, "ceiling_bytes": 9}, False)):
        retry = error_details_pb2.RetryInfo()
        details = status_of(Told("no", reason, **facts)).details
        assert any(detail.Unpack(retry) for detail in details) == can_help


def test_a_failure_tells_when_to_try_again_only_where_that_can_help() -> None:
    full = errors.ResourceExhausted("full", ErrorReason.DEVICE_OUT_OF_MEMORY, retry_after_s=5.0, needed_bytes=10)
    told = convert.to_failure(Failure.of(full), 1.0)
    assert told.retryable
    assert told.retry_delay.ToSeconds() == 5
    larger = errors.ResourceExhausted(
        "never", ErrorReason.DEVICE_OUT_OF_MEMORY, retry_after_s=5.0, needed_bytes=10, ceiling_bytes=9
    )
    never = convert.to_failure(Failure.of(larger), 1.0)
    assert not never.retryable
    assert not never.HasField("retry_delay")
    again = Failure(reason=ErrorReason.DEVICE_LOST, message="died three times", lasting=True)
    assert not convert.to_failure(again, 1.0).retryable


def test_fields_that_are_not_served_have_one_reason_and_give_way_to_faults() -> None:
    unserved, wrong = Violation(field="a", message="not yet"), Violation(field="b", message="too large")
    only = status_of(errors.refusal([], [unserved]))
    assert only.code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert only.details[0].Unpack(info)
    assert info.reason == "NOT_IMPLEMENTED"
    assert only.details[1].Unpack(request)
    assert [v.field for v in request.field_violations] == ["a"]

    def refuse(error: DeviceOpsError) -> None:
        raise error

    lacking, faulty = errors.NotServed([unserved]), InvalidRequest([wrong])
    for first, second in ((lacking, faulty), (faulty, lacking)):
        with pytest.raises(InvalidRequest) as told:
            convert.both(partial(refuse, first), partial(refuse, second))
        assert told.value.reason is ErrorReason.INVALID_FIELD
        assert {v.field for v in told.value.violations} == {"a", "b"}
    with pytest.raises(errors.NotServed):
        convert.both(partial(refuse, lacking), lambda: 1)
