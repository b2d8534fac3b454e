"""The gRPC channel to a child: a server of simulated devices for its life and death, the echo child for its messages."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from deviceops.processing.v1 import processing_service_pb2
from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub
from server.stdio.client import StdioClient
from server.stdio.metadata import from_frame, to_frame
from tests.server.stdio.child import PATH

STATUS = processing_service_pb2.GetSystemStatusRequest()
ECHO = (sys.executable, str(Path(__file__).with_name("echo_child.py")))


@asynccontextmanager
async def server(folder: Path, *flags: str) -> AsyncGenerator[StdioClient]:
    command = (sys.executable, "-m", "server", "serve", "--stdio", "--state", str(folder / "state"), "--device", "sim")
    with (folder / "log").open("wb") as log:
        async with StdioClient(*command, *flags, stderr=log.fileno()) as client:
            yield client


@asynccontextmanager
async def echo() -> AsyncGenerator[StdioClient]:
    async with StdioClient(*ECHO, env={**os.environ, "PYTHONPATH": PATH}) as client:
        yield client


async def test_a_killed_server_ends_its_calls_and_the_next_call_starts_another(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        stub = ProcessingServiceStub(client)
        before = await client.hello()
        assert (await stub.GetSystemStatus(STATUS)).status.listen_addresses == []
        watch = client.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        await anext(aiter(watch))
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            async for _ in watch:
                pass
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        await stub.GetSystemStatus(STATUS)
        after = await client.hello()
        assert client.starts == 2
        assert after.instance_id != before.instance_id
        assert "deviceops.processing.v1.ProcessingService" in after.services


async def test_a_terminated_server_says_go_away(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        frames = await client.frames()
        await client.hello()
        assert client.pid is not None
        os.kill(client.pid, signal.SIGTERM)
        assert (await frames.closed).detail == "the server shuts down"


async def test_garbage_to_a_server_is_answered_with_go_away_and_ends_it(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        frames = await client.frames()
        await client.hello()
        frames.process.write(b"GET / HTTP/1.1\r\n")
        assert "47 45 54" in (await frames.closed).detail
        assert await frames.process.wait() == 0


async def test_a_command_that_is_no_program_is_unavailable() -> None:
    async with StdioClient("/no/such/program") as client:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await client.unary_unary("/any")(b"")
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_child_that_prints_in_place_of_frames_is_named() -> None:
    async with StdioClient(sys.executable, "-c", "print('Loading')") as client:
        with pytest.raises(ConnectionError, match="4c 6f 61"):
            await client.hello()


async def test_streams_of_requests_and_answers_keep_their_order() -> None:
    sent = [str(number).encode() for number in range(100)]
    async with echo() as client:
        assert [answer async for answer in client.stream_stream("/echo")(iter(sent))] == sent


async def test_requests_can_be_written_one_by_one() -> None:
    async with echo() as client:
        call = client.stream_stream("/echo")()
        await call.write(b"one")
        assert await call.read() == b"one"
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK


async def test_a_deadline_holds_when_the_child_does_not_keep_it() -> None:
    async with echo() as client:
        call = client.unary_unary("/until")(b"", timeout=0.1)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await client.unary_unary("/echo")(b"next") == b"next"


async def test_cancelling_a_call_cancels_its_await() -> None:
    async with echo() as client:
        call = client.unary_unary("/until")(b"")
        await call.wait_for_connection()
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()
        assert not call.cancel()


async def test_a_status_has_its_details_and_trailers() -> None:
    async with echo() as client:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await client.unary_unary("/refuse")(b"")
        error = refusal.value
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
        assert dict(error.trailing_metadata()) == {"a": "b", "grpc-status-details-bin": b"\x08\x05"}


async def test_a_closed_client_makes_no_calls() -> None:
    async with echo() as client:
        await client.channel_ready()
    assert client.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    with pytest.raises(grpc.aio.UsageError):
        await client.frames()


def test_binary_metadata_is_base64_with_or_without_padding() -> None:
    assert to_frame([("a-bin", b"\x00\xff"), ("b", "c")]) == (("a-bin", "AP8="), ("b", "c"))
    assert from_frame([("a-bin", "AP8="), ("a-bin", "AP8"), ("b", "c")]) == (
        ("a-bin", b"\x00\xff"),
        ("a-bin", b"\x00\xff"),
        ("b", "c"),
    )
    with pytest.raises(ValueError, match="not base64"):
        from_frame([("a-bin", "å")])
    with pytest.raises(ValueError, match="-bin"):
        to_frame([("a", b"x")])
