"""Starts the small servers that transport benchmarks measure, and calls the bare one."""

import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import grpc

from deviceops.memory.v1 import memory_service_pb2

Echo = Callable[[bytes], bytes]


@contextmanager
def started(module: str, size_bytes: int) -> Generator[list[str]]:
    """Run `python -m MODULE SIZE`; the words of the line that it prints when it serves."""
    command = [sys.executable, "-m", module, str(size_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()
        finally:
            process.kill()


@contextmanager
def bare_echo(size_bytes: int) -> Generator[str]:
    """The address of the bare peer (`bare_server`)."""
    with started("bench.bare_server", size_bytes) as (port,):
        yield f"127.0.0.1:{port}"


def echo_stub(channel: grpc.Channel) -> Echo:
    """Calls `/bare/Echo`."""
    return channel.unary_unary("/bare/Echo")


def message_stub(channel: grpc.Channel) -> Callable[[bytes], memory_service_pb2.ReadBlobResponse]:
    """Calls `/bare/Message`."""
    return channel.unary_unary("/bare/Message", response_deserializer=memory_service_pb2.ReadBlobResponse.FromString)
