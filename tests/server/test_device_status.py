"""GetDeviceStatus and WatchDeviceStatus over a real transport and the real processor."""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import grpc
import psutil
import pytest

from deviceops.device.v1 import device_pb2, device_service_pb2
from domains import limits
from domains.device.cpu_telemetry import CpuTelemetry
from domains.device.device import DeviceState
from domains.device.status import DeviceStatus, Workload
from domains.device.threaded_telemetry import ThreadedTelemetry
from domains.errors import ErrorReason, NotFound
from domains.failure import Failure
from domains.measurement import LatencySummary
from server import convert
from server.device.status import DeviceStatusMethods, to_status
from server.errors import AnsweringErrors
from server.register import register
from tests.domains.device.fake_nvml import cpu_device

Request = device_service_pb2.WatchDeviceStatusRequest
Response = device_service_pb2.WatchDeviceStatusResponse

_SERVICE = device_service_pb2.DESCRIPTOR.services_by_name["DeviceService"]


class Processor:
    """The one device of this machine that is always there, measured."""

    def __init__(self) -> None:
        self.telemetry = ThreadedTelemetry(CpuTelemetry())
        self.device = cpu_device()
        self.failure: Failure | None = None
        self.taken = 0

    def ids(self) -> Sequence[str]:
        return ("cpu",)

    def resolve(self, name: str) -> str:
        if name in ("cpu", "cpu:0"):
            return "cpu"
        message = f"there is no device {name!r}; known: cpu"
        raise NotFound(message, ErrorReason.DEVICE_NOT_FOUND, device_id=name)

    async def status(self, device_id: str) -> DeviceStatus:
        self.taken += 1
        sample = await self.telemetry.sample(self.device)
        return DeviceStatus(device_id=device_id, state=DeviceState.AVAILABLE, sample=sample, last_failure=self.failure)


class Client:
    """The two calls."""

    def __init__(self, channel: grpc.aio.Channel, source: Processor, methods: DeviceStatusMethods) -> None:
        self.source, self.methods = source, methods
        self._get = channel.unary_unary(
            f"/{_SERVICE.full_name}/GetDeviceStatus",
            request_serializer=device_service_pb2.GetDeviceStatusRequest.SerializeToString,
            response_deserializer=device_service_pb2.GetDeviceStatusResponse.FromString,
        )
        self._watch = channel.unary_stream(
            f"/{_SERVICE.full_name}/WatchDeviceStatus",
            request_serializer=Request.SerializeToString,
            response_deserializer=Response.FromString,
        )

    async def get(self, name: str) -> Any:
        answer = await self._get(device_service_pb2.GetDeviceStatusRequest(device_id=name), timeout=20)
        return answer.status

    def watch(self, interval_s: float | None = None, *names: str) -> Any:
        interval = None if interval_s is None else convert.to_duration(interval_s)
        return self._watch(Request(device_ids=names, interval=interval), timeout=60)


@asynccontextmanager
async def hosted() -> AsyncGenerator[Client]:
    """A server of these methods alone."""
    source = Processor()
    methods = DeviceStatusMethods(source)
    server = grpc.aio.server()
    register(AnsweringErrors(server), _SERVICE, methods)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Client(channel, source, methods)
    finally:
        await server.stop(None)
        source.telemetry.close()


def burn(stop: Event) -> None:
    """Compute until told otherwise."""
    while not stop.is_set():
        sum(range(10_000))


@contextmanager
def one_core_busy() -> Generator[None]:
    """A process that computes and does nothing else."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=burn, args=(stop,))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join()


async def test_load_raises_the_utilization() -> None:
    async with hosted() as client:
        share = 1 / (psutil.cpu_count() or 1)
        with one_core_busy():
            async for answer in client.watch(0.2, "cpu"):
                if answer.statuses[0].utilization_ratio >= 0.8 * share:
                    break


async def test_a_status_tells_what_the_system_tells_and_leaves_away_what_it_cannot() -> None:
    async with hosted() as client:
        status = await client.get("cpu:0")
        assert status.device_id == "cpu"
        assert status.state == device_pb2.DEVICE_STATE_AVAILABLE
        assert 0 < status.used_memory_bytes < status.total_memory_bytes <= psutil.virtual_memory().total
        assert abs(status.sample_time.ToNanoseconds() / 1e9 - time.time()) < 5
        told = {field.name for field, _ in status.ListFields()}
        assert not told & {
            "memory_activity_ratio",
            "power_limit_watts",
            "fan_speed_fraction",
            "worker_uptime",
            "last_failure",
        }


async def test_the_first_round_comes_at_once() -> None:
    async with hosted() as client:
        begin = time.monotonic()
        await client.watch(60).read()
        assert time.monotonic() - begin < 30


async def test_rounds_come_at_the_asked_interval() -> None:
    async with hosted() as client:
        begin = time.monotonic()
        times: list[float] = []
        async for answer in client.watch(0.1):
            times.append(time.monotonic() - begin)
            assert [status.device_id for status in answer.statuses] == ["cpu"]
            if len(times) == 11:
                break
        assert 0.95 < times[-1] - times[0] < 5


@pytest.mark.parametrize("interval_s", [0.0, 0.099, 60.001, 1e9])
async def test_an_interval_outside_the_range_is_refused(interval_s: float) -> None:
    async with hosted() as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.watch(interval_s).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "0.1..60 s" in (caught.value.details() or "")
        assert client.source.taken == 0


async def test_a_negative_interval_is_refused() -> None:
    async with hosted() as client:
        request = Request()
        request.interval.seconds = -5
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client._watch(request).read()  # pyright: ignore[reportPrivateUsage]  # this test's own client
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["", "gpu-1", "../cpu", "cpu\0"])
async def test_an_unknown_device_ends_the_call_before_anything_is_sent(name: str) -> None:
    async with hosted() as client:
        for call in (client.get(name), client.watch(1, "cpu", name).read()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert client.source.taken == 0


async def test_a_device_named_twice_is_measured_once() -> None:
    async with hosted() as client:
        answer = await client.watch(1, "cpu", "cpu:0").read()
        assert len(answer.statuses) == 1


async def test_a_slow_reader_gets_the_newest_and_hears_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAILURE_BYTES", 2_000_000)
    async with hosted() as client:
        # Large enough that HTTP/2's window is soon full: below that, the transport itself keeps rounds for the reader.
        client.source.failure = Failure(reason=ErrorReason.DRIVER_ERROR, message="x" * 1_000_000)
        call = client.watch(0.1)
        await call.read()
        before, begin = client.source.taken, time.monotonic()
        await other_watcher(client, 24)
        skipped, last = 0, 0.0
        while skipped == 0:
            answer = await call.read()
            skipped, last = answer.skipped_count, answer.statuses[0].sample_time.ToNanoseconds() / 1e9
        assert skipped >= 5
        assert time.time() - last < 1.5
        assert client.source.taken - before <= (time.monotonic() - begin) / 0.1 + 4


async def other_watcher(client: Client, rounds: int) -> None:
    """Somebody else watches for so many rounds of a tenth of a second."""
    feed = client.methods.feed.watch(("cpu",), 0.1)
    for _ in range(rounds):
        await anext(feed)
    await feed.aclose()


async def test_leaving_stops_the_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosted() as client:
        feed, left = client.methods.feed, asyncio.Event()
        leave = feed._leave  # pyright: ignore[reportPrivateUsage]  # the server learns of it through the transport

        def leaving(watcher: object) -> None:
            leave(watcher)
            left.set()

        monkeypatch.setattr(feed, "_leave", leaving)
        call = client.watch(0.1)
        await call.read()
        call.cancel()
        async with asyncio.timeout(30):
            await left.wait()


def test_everything_measured_has_its_place_in_the_contract() -> None:
    summary = LatencySummary.of([0.5] * 20)
    work = Workload(
        running_job_ids=("a", "b"),
        queued_count=3,
        estimated_idle_s=2.5,
        jobs_per_s=0.5,
        error_ratio=0.0,
        run_time=summary,
    )
    status = DeviceStatus(
        device_id="cpu",
        state=DeviceState.DEGRADED,
        sample=CpuTelemetry().sample(cpu_device()),
        error_count=4,
        consecutive_error_count=2,
        last_failure=Failure(reason=ErrorReason.DRIVER_ERROR, message="no"),
        last_failure_time_s=1e9,
        worker_uptime_s=12.5,
        worker_restart_count=1,
        workload=work,
    )
    message = to_status(status)
    assert (message.error_count, message.consecutive_error_count, message.worker_restart_count) == (4, 2, 1)
    assert message.worker_uptime.ToNanoseconds() == 12_500_000_000
    assert message.last_failure.fail_time.seconds == 10**9
    told = message.workload
    assert (told.running_count, told.queued_count, list(told.running_job_ids)) == (2, 3, ["a", "b"])
    assert told.HasField("error_ratio")
    assert told.estimated_idle_in.ToNanoseconds() == 2_500_000_000
    assert told.run_time.HasField("p95")
    assert not told.run_time.HasField("p99")
