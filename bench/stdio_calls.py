"""Sequential unary calls over stdio against the same calls over TCP, to one server, with `grpc.aio` stubs."""

import asyncio
import sys
import tempfile
from pathlib import Path

import grpc

from bench.measure import interleave, ratio, result, spread
from deviceops.processing.v1 import processing_service_pb2
from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub
from server.stdio.client import StdioClient

ROUNDS = 20
CALLS = 500
"""Calls a round: 10,000 in all over each transport."""
STATUS = processing_service_pb2.GetSystemStatusRequest()


async def calls(channel: grpc.aio.Channel) -> None:
    """Make the calls, one after the other."""
    stub = ProcessingServiceStub(channel)
    for _ in range(CALLS):
        await stub.GetSystemStatus(STATUS)


def main() -> int:
    """Print the rate over stdio as a multiple of the rate over TCP."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log, asyncio.Runner() as runner:
        command = (sys.executable, "-m", "server", "serve", "--stdio", "--port", "0", "--device", "sim")

        async def opened() -> tuple[StdioClient, grpc.aio.Channel]:
            stdio = StdioClient(*command, "--state", str(Path(folder, "state")), stderr=log.fileno())
            status = (await ProcessingServiceStub(stdio).GetSystemStatus(STATUS)).status
            return stdio, grpc.aio.insecure_channel(status.listen_addresses[0])

        stdio, tcp = runner.run(opened())
        try:
            ways = {"stdio": lambda: runner.run(calls(stdio)), "tcp": lambda: runner.run(calls(tcp))}
            samples = interleave(ways, ROUNDS)
        finally:
            runner.run(tcp.close())
            runner.run(stdio.close())
    return result(
        "stdio_calls",
        ratio(samples["tcp"], samples["stdio"]),
        target=0.7,
        peer=f"the same server over TCP, grpc.aio {grpc.__version__}",
        conditions={},
        details={
            "calls": ROUNDS * CALLS,
            **{f"{way} calls/s": spread([CALLS / seconds for seconds in taken]) for way, taken in samples.items()},
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
