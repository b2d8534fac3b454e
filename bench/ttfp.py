"""Time to first progress: from the call of Generate to its first event, which is sent after the job is on disk.

Against a bare gRPC server that stores the same request in a database, as durably, and streams one answer of the same size:
what a handler costs that checks and resolves nothing, queues nothing and computes nothing. Jobs and bare calls take turns.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator

import grpc

from bench.bare import bare_echo
from bench.measure import Spread, result
from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from tests.server.harness import running_server

CALLS = 600
WARM_UP = 10
TARGET = 3.0
"""Most bare calls that the first event may take at the median."""
TARGET_P99 = 2.4
"""The same at the 99th percentile. The design asks for 3 ms there, on a machine that then took 2.33 ms: 1.88 bare calls, as
the same commit takes on another machine."""
_FIRST = inference_service_pb2.GenerateResponse
_REQUEST = inference_service_pb2.GenerateRequest(
    generation=generation_pb2.Generation(
        prompt="a red apple", width_px=64, height_px=64, sampling=sampling_pb2.Sampling(steps=1)
    )
).SerializeToString()


async def first_ms(call: AsyncIterator[bytes]) -> tuple[float, bytes]:
    """Milliseconds to the first message, and the message. Follows the call to its end: no job runs beside the next."""
    begin = time.perf_counter()
    first = await anext(call)
    took = (time.perf_counter() - begin) * 1e3
    async for _ in call:
        pass
    return took, first


async def measure(ours: str, bare: str) -> tuple[list[float], list[float]]:
    """Milliseconds of each job and of each bare call."""
    jobs, calls = list[float](), list[float]()
    async with grpc.aio.insecure_channel(ours) as our_channel, grpc.aio.insecure_channel(bare) as bare_channel:
        generate = our_channel.unary_stream("/deviceops.inference.v1.InferenceService/Generate")
        follow = bare_channel.unary_stream("/bare/Follow")
        for _ in range(WARM_UP + CALLS):
            took, first = await first_ms(aiter(generate(_REQUEST)))
            assert _FIRST.FromString(first).event.sequence == 1, "the first event is not the job's first"
            jobs.append(took)
            calls.append((await first_ms(aiter(follow(_REQUEST))))[0])
    return jobs[WARM_UP:], calls[WARM_UP:]


async def event_bytes(address: str) -> int:
    """Size of a first event."""
    async with grpc.aio.insecure_channel(address) as channel:
        generate = channel.unary_stream("/deviceops.inference.v1.InferenceService/Generate")
        return len((await first_ms(aiter(generate(_REQUEST))))[1])


def main() -> int:
    """Print the ratio ours / bare of the medians; lower is better."""
    with running_server("--device", "cpu") as server:
        size = asyncio.run(event_bytes(server.address))
        with bare_echo(size) as bare:
            ours, theirs = asyncio.run(measure(server.address, bare))
    ours_at, theirs_at = (statistics.quantiles(samples, n=100) for samples in (ours, theirs))
    at = {number: ours_at[number - 1] / theirs_at[number - 1] for number in (25, 50, 75, 99)}
    return result(
        "ttfp",
        Spread(median=at[50], low=at[25], high=at[75]),
        target=TARGET,
        better="lower",
        peer=f"a bare stream of grpc.aio {grpc.__version__} and one commit",
        conditions={f"at most {TARGET_P99} at the 99th percentile": at[99] <= TARGET_P99},
        details={
            "calls": CALLS,
            "bytes of an event": size,
            "ratio of the 99th percentiles": at[99],
            **{f"p{number} ms, ours and bare": [ours_at[number - 1], theirs_at[number - 1]] for number in (50, 95, 99)},
            "worst ms, ours and bare": [max(ours), max(theirs)],
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
