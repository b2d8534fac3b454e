"""Starts the bare peer (`bare_server`) and calls it."""

import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import grpc

Echo = Callable[[bytes], bytes]


@contextmanager
def bare_echo(size_bytes: int) -> Generator[str]:
    """Its address."""
    command = [sys.executable, "-m", "bench.bare_server", str(size_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def echo_stub(channel: grpc.Channel) -> Echo:
    """Calls `/bare/Echo`."""
    return channel.unary_unary("/bare/Echo")
