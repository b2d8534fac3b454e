"""Reads that touch no driver, while a generation runs: ListDevices, GetDevice, ListMemoryPools.

The peer is the target of 10 ms at the 95th percentile; the ratio is that of the slowest of the three / 10 ms.
"""

import asyncio
import statistics
import time

import grpc

from bench.busy import generating
from bench.measure import Spread, result
from bench.unary import wait_for_device
from deviceops.device.v1 import device_service_pb2
from deviceops.memory.v1 import memory_service_pb2
from tests.server.harness import running_server

CALLS = 500
PAUSE_S = 0.002
TARGET_MS = 10.0
READS = {
    "/deviceops.device.v1.DeviceService/ListDevices": device_service_pb2.ListDevicesRequest(),
    "/deviceops.device.v1.DeviceService/GetDevice": device_service_pb2.GetDeviceRequest(device_id="cpu"),
    "/deviceops.memory.v1.MemoryService/ListMemoryPools": memory_service_pb2.ListMemoryPoolsRequest(),
}


async def read(address: str) -> dict[str, list[float]]:
    """Milliseconds of each call by method, the methods in turns."""
    samples: dict[str, list[float]] = {method: [] for method in READS}
    async with grpc.aio.insecure_channel(address) as channel:
        calls = {method: channel.unary_unary(method) for method in READS}
        for _ in range(CALLS + 10):
            for method, request in READS.items():
                begin = time.perf_counter()
                await calls[method](request.SerializeToString())
                samples[method].append((time.perf_counter() - begin) * 1e3)
                await asyncio.sleep(PAUSE_S)
    return {method: took[10:] for method, took in samples.items()}


def main() -> int:
    """Print the slowest 95th percentile against the target."""
    with running_server("--device", "cpu") as server:
        wait_for_device(server.device)
        with generating(server):
            samples = asyncio.run(read(server.address))
    cuts = {method.rpartition("/")[2]: statistics.quantiles(took, n=100) for method, took in samples.items()}
    slowest = max(cuts.values(), key=lambda cut: cut[94])
    return result(
        "cached_reads",
        Spread(median=slowest[94] / TARGET_MS, low=slowest[49] / TARGET_MS, high=slowest[98] / TARGET_MS),
        target=1.0,
        better="lower",
        peer=f"a p95 of {TARGET_MS:g} ms",
        details={
            "calls each": CALLS,
            **{name: {"p50 ms": cut[49], "p95 ms": cut[94], "p99 ms": cut[98]} for name, cut in cuts.items()},
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
