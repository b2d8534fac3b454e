"""The ports: how they are opened, and what a port that somebody else has is called."""

import socket
import sys

import grpc

from domains.errors import AlreadyExists
from server.settings import Settings


def options(settings: Settings) -> list[tuple[str, int]]:
    """Of the gRPC server."""
    return [
        # A second server on the same port must fail, not share it.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # .NET clients ping through long loads, every 10 s at the most often; the default answers them with GOAWAY.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def listen(server: grpc.aio.Server, settings: Settings) -> list[str]:
    """Open the ports. Raises ID_TAKEN for one that somebody else has."""
    addresses = {f"{settings.host}:{settings.port}": "--port"}
    if settings.socket:
        addresses[f"unix:{settings.socket.resolve()}"] = "--socket"
    opened: list[str] = []
    for address, flag in addresses.items():
        try:
            port = 0 if _has_owner(address) else server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if not port:
            message = f"cannot listen on {address}: another program has it; stop that one or choose another {flag}"
            raise AlreadyExists(message, address=address)
        opened.append(address if address.startswith("unix:") else f"{settings.host}:{port}")
    return opened


def _has_owner(address: str) -> bool:
    """Whether somebody answers at a Unix socket; gRPC would take its path away from them."""
    if sys.platform == "win32" or not address.startswith("unix:"):
        # Python has no Unix sockets on Windows: there gRPC alone says whether it can listen.
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address.removeprefix("unix:")) == 0
