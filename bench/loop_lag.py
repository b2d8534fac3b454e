"""How late the front's event loop is while a generation runs on it.

Nothing is added to the server for this: a client in another process asks the front for a value that it only looks up
(GetDevice), and in turn a bare grpc.aio echo server of as many bytes that does nothing else, on the same machine under the
same load. Both wait for a processor alike; what the front takes longer is its loop, busy with events, journals and the
worker's messages, and the making of the answer. The difference of the two 99th percentiles is an estimate (below zero: lost
in the noise of the machine); that of the front by itself, `high`, is what the lag cannot exceed.

The peer is the target of 5 ms; the ratio is measured / that.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import grpc

from bench.bare import bare_echo
from bench.busy import generating
from bench.measure import Spread, result
from bench.unary import METHOD, wait_for_device
from deviceops.device.v1 import device_service_pb2
from tests.server.harness import running_server

PROBES = 2000
PAUSE_S = 0.003
"""Between two probes: they shall find the loop as it is, not make it busy."""
TARGET_MS = 5.0


async def took_ms(call: Callable[[bytes], Awaitable[bytes]], request: bytes) -> float:
    """One round trip."""
    begin = time.perf_counter()
    await call(request)
    return (time.perf_counter() - begin) * 1e3


async def probe(front: str, bare: str, request: bytes) -> tuple[list[float], list[float]]:
    """Milliseconds of the front's answers and of the bare server's, asked in turns."""
    ours: list[float] = []
    theirs: list[float] = []
    async with grpc.aio.insecure_channel(front) as one, grpc.aio.insecure_channel(bare) as other:
        pair = [(one.unary_unary(METHOD), ours), (other.unary_unary("/bare/Echo"), theirs)]
        for number in range(PROBES + 20):
            for call, samples in pair if number % 2 else reversed(pair):
                samples.append(await took_ms(call, request))
                await asyncio.sleep(PAUSE_S)
    return ours[20:], theirs[20:]


def percentiles(samples: list[float]) -> dict[str, float]:
    """In milliseconds."""
    cuts = statistics.quantiles(samples, n=100)
    return {"p50 ms": cuts[49], "p95 ms": cuts[94], "p99 ms": cuts[98], "worst ms": max(samples)}


def main() -> int:
    """Print the lag at the 99th percentile against the target."""
    request = device_service_pb2.GetDeviceRequest(device_id="cpu")
    with running_server("--device", "cpu") as server:
        wait_for_device(server.device)
        size = len(server.device.GetDevice(request).SerializeToString())
        with bare_echo(size) as bare, generating(server):
            ours, theirs = asyncio.run(probe(server.address, bare, request.SerializeToString()))
    front, echo = percentiles(ours), percentiles(theirs)
    lag = {name: front[name] - echo[name] for name in front}
    return result(
        "loop_lag",
        Spread(median=lag["p99 ms"] / TARGET_MS, low=lag["p50 ms"] / TARGET_MS, high=front["p99 ms"] / TARGET_MS),
        target=1.0,
        better="lower",
        peer=f"a p99 of {TARGET_MS} ms",
        details={"probes": PROBES, "front": front, f"bare grpc.aio {grpc.__version__} echo": echo, "lag": lag},
    )


if __name__ == "__main__":
    raise SystemExit(main())
