"""Parses addresses of servers from the command line."""

from __future__ import annotations

import re

from server.cli.console.failure import USAGE, CliError

DEFAULT_PORT = 50051
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"
"""Default address of `deviceops serve`."""

_OF_GRPC = re.compile(r"(unix|unix-abstract|dns|ipv4|ipv6|vsock|xds):")
"""Schemes that gRPC resolves itself."""
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")


def target(address: str) -> str:
    """The gRPC target of an address. Raises `CliError` (usage) for text that is no address."""
    plain = address.strip().removeprefix("http://").removesuffix("/")
    if plain.startswith("https://"):
        raise CliError(f"--address {address}: the server has no encryption; write HOST:PORT", USAGE)
    if _OF_GRPC.match(plain):
        return plain
    parts = _HOST_AND_PORT.fullmatch(plain)
    if parts is None:
        raise CliError(f"--address {address}: {_wrong(plain)}", USAGE)
    if not 0 < int(parts["port"]) <= 65535:
        raise CliError(f"--address {address}: a port is 1..65535", USAGE)
    return plain


def _wrong(plain: str) -> str:
    if plain.count(":") > 1 and "[" not in plain:
        return f"write an IPv6 address in brackets, as [::1]:{DEFAULT_PORT}"
    if plain and re.fullmatch(r"[^\s:/]+:?|\[[^\]\s]+\]", plain):
        return f"the port is missing; write {plain.removesuffix(':')}:{DEFAULT_PORT}"
    return "write HOST:PORT or unix:PATH"
