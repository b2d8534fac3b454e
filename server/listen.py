"""Opens the ports, and names the error of a port that another process has."""

import socket
import sys

import grpc
import structlog

from domains.errors import AlreadyExists
from server.settings import Settings, is_loopback

_log = structlog.get_logger()


def options(settings: Settings) -> list[tuple[str, int]]:
    """Options of the gRPC server. `bench/attacks` and `tests/server/test_attacks.py` show the effect of each limit."""
    return [
        # A second server on the same port must fail, not share it.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # .NET clients ping during long loads; gRPC closes a connection below the interval with "Too many pings".
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(settings.min_ping_interval_s)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Without it, one connection that opens and resets streams gets calls of other clients cancelled.
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", _ms(settings.handshake_timeout_s)),
        ("grpc.max_connection_idle_ms", _ms(settings.idle_connection_s)),
        # Identity alone: a compressed request can expand a thousandfold.
        ("grpc.compression_enabled_algorithms_bitset", 1),
    ]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def listen(server: grpc.aio.Server, settings: Settings, *, only_named: bool = False) -> list[str]:
    """Open the ports. Raises ID_TAKEN for a port that another process has.

    `only_named`: no TCP port unless the settings name one.
    """
    tcp = not only_named or "port" in settings.model_fields_set
    addresses = {f"{settings.host}:{settings.port}": "--port"} if tcp else {}
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
        if not (address.startswith("unix:") or is_loopback(settings.host)):
            _log.warning("other machines can reach this port, without encryption or token", address=address)
        opened.append(address if address.startswith("unix:") else f"{settings.host}:{port}")
    return opened


def _has_owner(address: str) -> bool:
    """Whether a process listens on a Unix socket. gRPC would replace its path without an error."""
    if sys.platform == "win32" or not address.startswith("unix:"):
        # Python has no Unix sockets on Windows: only gRPC can tell there whether it can listen.
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address.removeprefix("unix:")) == 0
