"""Cost of the C# client: time added to the first event of a generation over Python's stub, and bytes allocated an event.

Both sides are measured in turns. The bytes count beyond those of a bare C# stub.
The peer is Python's stub plus 2 ms; the ratio is (C# - Python) / 2 ms. It needs a .NET SDK.
"""

import asyncio
import statistics
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import grpc

from bench.measure import result, spread
from deviceops.inference.v1 import generation_pb2, inference_service_pb2, sampling_pb2
from deviceops.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from tests.csharp.sdk import dotnet, find_sdk
from tests.server.harness import running_server

FOLDER = Path(__file__).parent / "csharp"
ROUNDS = 5
CALLS = 60
WARM_UP = 20
"""First calls of each round that are not counted: .NET compiles the hot code during them."""
TARGET_MS = 2.0
TARGET_BYTES = 1024


async def python_ms(address: str) -> list[float]:
    """Milliseconds to the first event of each call, with the same options as the C# client sets."""
    generation = generation_pb2.Generation(
        prompt="a red apple", width_px=64, height_px=64, sampling=sampling_pb2.Sampling(steps=1, seed=7)
    )
    samples: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        inference = InferenceServiceStub(channel)
        for _ in range(CALLS):
            request = inference_service_pb2.GenerateRequest(
                generation=generation, detached=True, request_id=str(uuid.uuid4())
            )
            begin = time.perf_counter()
            responses = aiter(inference.Generate(request))  # pyright: ignore[reportArgumentType]  # the stubs know only the sync shape
            await anext(responses)
            samples.append((time.perf_counter() - begin) * 1e3)
            async for _ in responses:
                pass
    return samples[WARM_UP:]


def csharp(environment: Mapping[str, str], *arguments: str) -> str:
    """Returns what the C# program prints."""
    return dotnet(environment, "run", "-c", "Release", "--no-build", "--", *arguments, folder=FOLDER)


def csharp_ms(environment: Mapping[str, str], address: str) -> list[float]:
    """Milliseconds to the first event of each call."""
    return [float(line) for line in csharp(environment, "first", address, str(CALLS)).split()][WARM_UP:]


def main() -> int:
    """Print the added time against the target."""
    environment = find_sdk()
    if environment is None:
        raise SystemExit("no .NET SDK: `dotnet` is not on PATH and ../shared/dotnet is not there")
    dotnet(environment, "build", "-c", "Release", "-m:1", "--nologo", "-v", "quiet", folder=FOLDER)
    ours: list[float] = []
    theirs: list[float] = []
    with running_server("--device", "cpu") as server:
        asyncio.run(python_ms(server.address))
        for _ in range(ROUNDS):
            theirs.append(statistics.median(asyncio.run(python_ms(server.address))))
            ours.append(statistics.median(csharp_ms(environment, server.address)))
        followed, bare = map(float, csharp(environment, "events", server.address).split())
    return result(
        "csharp_client",
        spread([(mine - other) / TARGET_MS for mine, other in zip(ours, theirs, strict=True)]),
        target=1.0,
        better="lower",
        peer=f"Python's stub (grpcio {grpc.__version__}) plus {TARGET_MS} ms",
        conditions={f"at most {TARGET_BYTES} bytes an event beyond its message": followed - bare <= TARGET_BYTES},
        details={
            "first event, C#, ms": spread(ours),
            "first event, Python, ms": spread(theirs),
            "bytes an event, followed": followed,
            "bytes an event, bare stub": bare,
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
