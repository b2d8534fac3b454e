"""A picture of 3 MiB over stdio against base64 in lines of JSON over the same kind of pipe, and against gRPC over TCP."""

import asyncio
import base64
import json
import subprocess
import sys

import grpc

from bench.measure import interleave, ratio, result, spread
from bench.picture_server import SERVICE, SIZE, picture
from server.stdio.client import StdioClient

ROUNDS = 20
PICTURES = 8
"""A round; each is asked for when the one before has come."""
PICTURE = picture()
LIMIT = [("grpc.max_receive_message_length", 16 << 20)]
TCP_SHARE = 0.5
"""Of TCP's rate, which stdio has at least."""


async def fetch(channel: grpc.aio.Channel) -> bool:
    """Ask for the pictures; whether the last one is whole. A task that returns bytes is slow: `Runner.run` has its repr."""
    get, data = channel.unary_unary(f"/{SERVICE}/Get"), b""
    for _ in range(PICTURES):
        data = await get(b"")
    return data == PICTURE


def read_lines(child: subprocess.Popen[bytes]) -> bool:
    """Ask for the pictures; whether the last one is whole."""
    assert child.stdin is not None
    assert child.stdout is not None
    data = b""
    for _ in range(PICTURES):
        child.stdin.write(b"\n")
        child.stdin.flush()
        data = base64.b64decode(json.loads(child.stdout.readline())["image"])
    return data == PICTURE


def main() -> int:
    """Print the rate over stdio as a multiple of that of lines of JSON; half of TCP's rate is a condition."""
    server = (sys.executable, "-m", "bench.picture_server")
    pipe = subprocess.PIPE
    with asyncio.Runner() as runner, subprocess.Popen([*server, "lines"], stdin=pipe, stdout=pipe) as child:

        async def opened() -> tuple[StdioClient, grpc.aio.Channel]:
            stdio = StdioClient(*server, "stdio")
            port = await stdio.unary_unary(f"/{SERVICE}/PORT")(b"")
            return stdio, grpc.aio.insecure_channel(f"127.0.0.1:{port.decode()}", LIMIT)

        stdio, tcp = runner.run(opened())
        ways = {
            "stdio": lambda: runner.run(fetch(stdio)),
            "json": lambda: read_lines(child),
            "tcp": lambda: runner.run(fetch(tcp)),
        }
        try:
            conditions = {f"{way} equal": get() for way, get in ways.items()}
            samples = interleave(ways, ROUNDS)
        finally:
            runner.run(tcp.close())
            runner.run(stdio.close())
            child.communicate()
    over_tcp = ratio(samples["tcp"], samples["stdio"])
    return result(
        "stdio_picture",
        ratio(samples["json"], samples["stdio"]),
        target=10.0,
        peer=f"base64 in JSON lines, Python {sys.version.split()[0]}",
        conditions={**conditions, "at least half of TCP's rate": over_tcp.median >= TCP_SHARE},
        details={
            "picture bytes": SIZE,
            "ratio to TCP": over_tcp,
            **{
                f"{way} MB/s": spread([PICTURES * SIZE / seconds / 1e6 for seconds in taken])
                for way, taken in samples.items()
            },
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
