"""Every method of the server over TCP, a Unix socket and stdio: one server, and the same answers."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from deviceops.device.v1 import device_pb2, device_service_pb2
from deviceops.device.v1.device_service_pb2_grpc import DeviceServiceStub
from deviceops.inference.v1 import inference_service_pb2
from deviceops.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from deviceops.memory.v1 import memory_service_pb2
from deviceops.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
from deviceops.processing.v1 import processing_service_pb2
from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub
from server.services import SERVICES
from server.stdio.client import StdioClient
from tests.server import asking

STATUS = processing_service_pb2.GetSystemStatusRequest()
METHODS = [method for served in SERVICES.values() for method in served.service.methods]
MOST_HEARTBEATS = 10
LIMIT = [("grpc.max_receive_message_length", 16 << 20)]

REAL: dict[str, Any] = json.loads((Path(__file__).parents[2] / "rpc_requests.json").read_text("utf-8"))
"""Requests with content, as protobuf JSON; `$device` and `$pool` stand for ids. The tests in C# send them too."""

Channels = dict[str, grpc.aio.Channel]
Answer = tuple[str, str, bytes, list[str]]


async def channels(folder: Path) -> AsyncGenerator[Channels]:
    """The three channels of one new server."""
    command = (sys.executable, "-m", "server", "serve", "--stdio", "--port", "0", "--socket", str(folder / "socket"))
    flags = ("--state", str(folder / "state"), "--device", "cpu", "--heartbeat-s", "0.1", "--drain-reads-s", "0")
    with (folder / "log").open("wb") as log:
        async with StdioClient(*command, *flags, stderr=log.fileno()) as stdio:
            status = await ProcessingServiceStub(stdio).GetSystemStatus(STATUS)
            tcp, unix = status.status.listen_addresses
            async with grpc.aio.insecure_channel(tcp, LIMIT) as first, grpc.aio.insecure_channel(unix, LIMIT) as second:
                yield {"tcp": first, "unix": second, "stdio": stdio}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs a test's coroutine with the channels, in the one loop that they belong to."""
    with asyncio.Runner() as runner:
        opened = channels(tmp_path_factory.mktemp("stdio"))
        three = runner.run(anext(opened))
        try:
            yield lambda test: runner.run(asyncio.wait_for(test(three), asking.CALL_S))  # pyright: ignore[reportUnknownLambdaType]
        finally:
            runner.run(opened.aclose())


Run = Callable[[Callable[[Channels], Coroutine[Any, Any, None]]], None]


def shape(message: Message) -> list[str]:
    """The fields that are set; their values may be of the moment."""
    return [field.name for field, _ in message.ListFields()]


async def asked(channel: Any, method: Any, request: Message) -> Answer:
    """Status, and the fields of the first answer."""
    kinds = ("unary", "stream")
    door = getattr(channel, f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}")
    callee = door(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),  # pyright: ignore[reportUnknownLambdaType]
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    call = callee(iter([request]) if method.client_streaming else request, timeout=asking.CALL_S)
    try:
        if not method.server_streaming:
            return "OK", "", b"", shape(await call)
        # On a busy machine heartbeats come before the first answer; a stream without news has nothing else.
        first, beats = await call.read(), 1
        while isinstance(first, Message) and not first.ByteSize() and beats < MOST_HEARTBEATS:
            first, beats = await call.read(), beats + 1
        call.cancel()
        return "OK", "", b"", shape(first) if isinstance(first, Message) else ["nothing"]
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or "", details_of(error), []


def details_of(error: grpc.aio.AioRpcError) -> bytes:
    found = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    return found if isinstance(found, bytes) else found.encode()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_a_method_answers_the_same_over_each_transport(run: Run, method: Any) -> None:
    async def test(three: Channels) -> None:
        request = GetMessageClass(method.input_type)()
        answers = {name: await asked(channel, method, request) for name, channel in three.items()}
        assert answers["stdio"] == answers["tcp"] == answers["unix"]

    run(test)


async def ids(channel: grpc.aio.Channel) -> dict[str, str]:
    """An id of the server for each placeholder, once the device is available: answers differ while it starts."""
    devices = await DeviceServiceStub(channel).ListDevices(device_service_pb2.ListDevicesRequest())
    watch = DeviceServiceStub(channel).WatchDeviceStatus(
        device_service_pb2.WatchDeviceStatusRequest(device_ids=[devices.devices[0].id])
    )
    async for update in watch:
        if any(status.state == device_pb2.DEVICE_STATE_AVAILABLE for status in update.statuses):
            break
    watch.cancel()
    pools = await MemoryServiceStub(channel).ListMemoryPools(memory_service_pb2.ListMemoryPoolsRequest())
    return {"$device": devices.devices[0].id, "$pool": pools.memory_pools[0].id}


def filled(value: Any, found: dict[str, str]) -> Any:
    """The value with ids in place of the placeholders."""
    if isinstance(value, dict):
        return {key: filled(inner, found) for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [filled(inner, found) for inner in value]  # pyright: ignore[reportUnknownVariableType]
    return found.get(value, value)


@pytest.mark.parametrize("name", REAL)
def test_a_request_with_content_is_answered_the_same_over_each_transport(run: Run, name: str) -> None:
    async def test(three: Channels) -> None:
        (method,) = (method for method in METHODS if method.full_name.endswith(f".{name}"))
        request = ParseDict(filled(REAL[name], await ids(three["tcp"])), GetMessageClass(method.input_type)())
        answers = {way: await asked(channel, method, request) for way, channel in three.items()}
        assert answers["stdio"] == answers["tcp"] == answers["unix"]
        assert answers["stdio"][0] in ("OK", "NOT_FOUND", "INVALID_ARGUMENT"), answers["stdio"]

    run(test)


def test_a_picture_is_the_same_over_each_transport(run: Run) -> None:
    async def picture(channel: grpc.aio.Channel) -> tuple[list[str], bytes]:
        request = inference_service_pb2.GenerateRequest(generation=asking.picture())
        events = [event async for event in InferenceServiceStub(channel).Generate(request)]
        job_id = next(event.event.job_id for event in events if event.event.job_id)
        job = (await ProcessingServiceStub(channel).GetJob(processing_service_pb2.GetJobRequest(job_id=job_id))).job
        blob = memory_service_pb2.ReadBlobRequest(blob_id=job.generation_result.images[0].file.blob_id)
        data = b"".join([part.data async for part in MemoryServiceStub(channel).ReadBlob(blob)])
        kinds = [kind for kind in asking.kinds(events) if kind in asking.ENDINGS]
        return kinds, data

    async def test(three: Channels) -> None:
        pictures = {name: await picture(channel) for name, channel in three.items()}
        assert pictures["stdio"] == pictures["tcp"] == pictures["unix"]
        assert pictures["stdio"][0] == ["succeeded"]
        assert len(pictures["stdio"][1]) > 100

    run(test)


def test_health_and_reflection_answer_the_same(run: Run) -> None:
    async def answers(channel: Any) -> tuple[object, object]:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())  # pyright: ignore
        call = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        return health, await call.read()

    async def test(three: Channels) -> None:
        told = [await answers(channel) for channel in three.values()]
        assert told[0] == told[1] == told[2]

    run(test)


def test_an_unknown_method_is_unimplemented(run: Run) -> None:
    async def test(three: Channels) -> None:
        for channel in three.values():
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await channel.unary_unary("/nobody.Nothing/At")(b"")
            assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(test)


def test_a_deadline_ends_a_watch(run: Run) -> None:
    async def test(three: Channels) -> None:
        for channel in three.values():
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=0.2)  # pyright: ignore
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                _ = [update async for update in watch]  # pyright: ignore
            assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    run(test)


def test_leaving_generate_cancels_its_job(run: Run) -> None:
    async def left(channel: grpc.aio.Channel) -> str:
        stub = ProcessingServiceStub(channel)
        generation = asking.picture(steps=asking.LONG_STEPS)
        call = InferenceServiceStub(channel).Generate(inference_service_pb2.GenerateRequest(generation=generation))
        job_id = ""
        async for event in call:
            job_id = event.event.job_id
            if asking.denoising(event):
                break
        call.cancel()
        watch = stub.WatchJob(processing_service_pb2.WatchJobRequest(job_id=job_id))
        return [kind for kind in asking.kinds([event async for event in watch]) if kind in asking.ENDINGS][-1]

    async def test(three: Channels) -> None:
        assert {name: await left(channel) for name, channel in three.items()} == dict.fromkeys(three, "cancelled")

    run(test)
