"""A server that accepts calls and never answers holds no command for ever."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from deviceops.processing.v1 import processing_service_pb2
from server.cli.app import run
from server.cli.calls.deadlines import VARIABLE, limit_s
from server.cli.console.failure import CliError
from tests.server.cli.peer import peer

LIMIT_S = 0.5
SERVICE = "deviceops.processing.v1.ProcessingService"


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of a server whose calls wait until the test is over."""
    over = threading.Event()

    def wait(request: Any, context: grpc.ServicerContext) -> None:
        over.wait()

    def say_nothing(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield processing_service_pb2.WatchEventsResponse().SerializeToString()
        over.wait()

    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        **{name: grpc.unary_unary_rpc_method_handler(wait) for name in ("GetSystemStatus", "ListJobs", "GetJob")},
        "WatchEvents": grpc.unary_stream_rpc_method_handler(say_nothing),
    }
    with peer(SERVICE, methods) as address:
        yield address
        over.set()


@pytest.fixture(autouse=True)
def _limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(LIMIT_S))


@pytest.mark.parametrize("command", [["status"], ["jobs"], ["job", "show", "job-1"]], ids=" ".join)
def test_a_call_without_an_answer_ends_with_a_sentence(
    command: list[str], mute: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = time.monotonic()
    assert run([*command, "--address", mute]) == 1
    assert LIMIT_S <= time.monotonic() - begin < 30
    told = capsys.readouterr().err
    assert f"the server at {mute} did not answer in time" in told
    assert "Traceback" not in told


def test_a_stream_that_falls_silent_ends_with_a_sentence(mute: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["events", "--address", mute]) == 1
    assert f"the server at {mute} accepts calls and has said nothing for {LIMIT_S:g} s" in capsys.readouterr().err


def test_a_stream_that_speaks_may_take_longer_than_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    paces = 4

    def speak_slowly(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        never = threading.Event()
        for _ in range(paces):
            never.wait(0.6 * LIMIT_S)
            yield processing_service_pb2.WatchEventsResponse().SerializeToString()
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")

    begin = time.monotonic()
    with peer(SERVICE, {"WatchEvents": grpc.unary_stream_rpc_method_handler(speak_slowly)}) as address:
        assert run(["events", "--address", address]) == 1
    assert time.monotonic() - begin > 0.6 * LIMIT_S * paces > LIMIT_S
    assert "RESOURCE_EXHAUSTED: enough" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_a_limit_that_is_no_time_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(CliError, match=VARIABLE) as refused:
        limit_s(1.0)
    assert refused.value.exit_code == 2
