"""A small gRPC server inside the test, to answer what a healthy DeviceOps server never would."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
from collections.abc import Generator, Mapping
from typing import Any

import grpc


@contextlib.contextmanager
def peer(service: str, methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> Generator[str]:
    """Serve these methods of a service (its full name) on a free port of this machine. Yields the address."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, dict(methods))])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
