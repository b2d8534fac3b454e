"""What a person reads when a call is refused."""

from typing import NoReturn

import grpc
import pytest
from google.rpc import status_pb2
from grpc_status import rpc_status

from deviceops.common.v1 import error_pb2
from deviceops.processing.v1 import processing_service_pb2
from domains.errors import DeviceOpsError, ErrorReason, InvalidRequest, NotFound, ResourceExhausted, Violation
from server.cli.app import run
from server.cli.calls.connection import Connection
from server.cli.console.failure import USAGE, CliError, explain_failure
from server.errors import status_of
from tests.server.cli.peer import free_port, peer

_SERVICE = "deviceops.processing.v1.ProcessingService"


def _words_for(status: status_pb2.Status) -> str:
    def refuse(request: processing_service_pb2.GetJobRequest, context: grpc.ServicerContext) -> NoReturn:
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort always raises")

    refusing = grpc.unary_unary_rpc_method_handler(
        refuse, request_deserializer=processing_service_pb2.GetJobRequest.FromString
    )
    with (
        peer(_SERVICE, {"GetJob": refusing}) as address,
        pytest.raises(CliError) as told,
        Connection(address) as connection,
    ):
        connection.processing.GetJob(processing_service_pb2.GetJobRequest())
    assert told.value.exit_code == 1
    return told.value.message


def _words_of(error: DeviceOpsError) -> str:
    return _words_for(status_of(error))


def test_every_violation_has_its_line_and_is_told_once():
    violations = [
        Violation(field="generation.sampling.steps", message="0 is not within 1..1000"),
        Violation(field="generation.width_px", message="7 is not within 64..4096"),
    ]
    assert _words_of(InvalidRequest(violations)).splitlines() == [
        "the server refused the request [INVALID_FIELD]",
        "  generation.sampling.steps: 0 is not within 1..1000",
        "  generation.width_px: 7 is not within 64..4096",
    ]


def test_a_message_and_its_reason_stand_on_one_line():
    assert _words_of(NotFound("there is no job 'x'", job_id="x")) == "there is no job 'x' [JOB_NOT_FOUND]"


def test_the_time_to_try_again_is_told():
    full = ResourceExhausted("the queue is full", ErrorReason.QUEUE_FULL, retry_after_s=2.5)
    assert _words_of(full).splitlines() == ["the queue is full [QUEUE_FULL]", "  try again in 2.5 s"]


def test_a_status_without_details_is_told_by_its_code():
    told = _words_for(status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="too much"))
    assert told == "RESOURCE_EXHAUSTED: too much"


def test_a_call_that_the_server_does_not_know_says_so():
    with (
        peer(_SERVICE, {}) as address,
        pytest.raises(CliError, match="cannot do this"),
        Connection(address) as connection,
    ):
        connection.processing.GetJob(processing_service_pb2.GetJobRequest())


def test_no_server_is_one_sentence_with_the_remedy(capsys: pytest.CaptureFixture[str]):
    address = f"127.0.0.1:{free_port()}"
    for command in (["status"], ["jobs"], ["generate", "an owl"], ["watch", "job-1", "--wait-limit", "0"]):
        assert run([*command, "--address", address]) == USAGE
        told = capsys.readouterr()
        *_, last = told.err.splitlines()
        assert address in last
        assert "deviceops serve" in last
        assert "Traceback" not in told.err
        assert not told.out


def test_a_jobs_failure_names_its_reason_and_violations():
    failure = error_pb2.Failure(
        reason=error_pb2.ERROR_REASON_DEVICE_OUT_OF_MEMORY,
        message="cpu has 1 MiB left, 2 MiB are needed",
        violations=[error_pb2.FieldViolation(field="width_px", message="smaller would fit")],
        retryable=True,
    )
    assert explain_failure(failure).splitlines() == [
        "cpu has 1 MiB left, 2 MiB are needed [DEVICE_OUT_OF_MEMORY]",
        "  width_px: smaller would fit",
        "  the same request may succeed later",
    ]
