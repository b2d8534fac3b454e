"""Unary calls a second of a real method (GetDevice: looked up, built, serialised) against a bare echo of as many bytes.

Both servers run in processes of their own; one asyncio client keeps a few calls under way on each in turn.
"""

import asyncio
import time

import grpc

from bench.bare import bare_echo
from bench.measure import ratio, result, spread
from deviceops.device.v1 import device_pb2, device_service_pb2
from tests.server.harness import running_server

IN_FLIGHT = 8
CALLS = 2000
ROUNDS = 12
METHOD = "/deviceops.device.v1.DeviceService/GetDevice"


async def calls_per_second(address: str, method: str, request: bytes) -> float:
    """Throughput of one round."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(method)
        for _ in range(20):
            await call(request)

        async def worker() -> None:
            for _ in range(CALLS // IN_FLIGHT):
                await call(request)

        begin = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
        return CALLS / (time.perf_counter() - begin)


def main() -> int:
    """Print the ratio ours / bare; higher is better."""
    request = device_service_pb2.GetDeviceRequest(device_id="cpu").SerializeToString()
    with running_server("--device", "cpu") as server:
        wait_for_device(server.device)
        size = len(server.device.GetDevice(device_service_pb2.GetDeviceRequest(device_id="cpu")).SerializeToString())
        with bare_echo(size) as bare:
            ours, theirs = measure(server.address, bare, request)
    return result(
        "unary",
        ratio(ours, theirs),
        target=0.85,
        peer=f"bare grpc.aio {grpc.__version__} echo",
        details={"answer bytes": size, "our calls/s": spread(ours), "bare calls/s": spread(theirs)},
    )


def measure(address: str, bare: str, request: bytes) -> tuple[list[float], list[float]]:
    """Rounds in turns, the first one not counted."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(ROUNDS + 1):
        pair = [(ours, address, METHOD), (theirs, bare, "/bare/Echo")]
        for samples, where, method in pair if number % 2 else reversed(pair):
            samples.append(asyncio.run(calls_per_second(where, method, request)))
    return ours[1:], theirs[1:]


def wait_for_device(stub: object, limit_s: float = 60) -> None:
    """Until the worker has described its device."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        answer = stub.ListDevices(device_service_pb2.ListDevicesRequest())  # pyright: ignore[reportAttributeAccessIssue]  # any stub
        if any(device.state == device_pb2.DEVICE_STATE_AVAILABLE for device in answer.devices):
            return
        time.sleep(0.2)
    raise AssertionError("no device came up")


if __name__ == "__main__":
    raise SystemExit(main())
