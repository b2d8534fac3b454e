"""Messages between the server and its nursery: one packet a value, over a Unix socket. No pickle."""

from typing import Final

import msgspec

PACKET_BYTES: Final = 4096
READY: Final = b"ready"
"""The nursery's first packet, sent when it has imported everything."""
TAKE_OVER_BYTES: Final = 128 * 1024
"""Most bytes of a `TakeOver`: room for any environment that workers get."""


class TakeOver(msgspec.Struct, frozen=True, kw_only=True):
    """The server's first packet to a nursery that it did not start. The server's stderr comes with it."""

    environment: dict[str, str]
    """All environment variables of the nursery and its forks."""


class ForkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Fork a worker. The ends of its stdin and stdout come as file descriptors with the packet."""

    name: str
    """The device's name: `cpu`, `cuda:0`, `sim-0`."""
    uuid: str = ""
    """UUID of the only GPU that the worker sees; empty: it sees all."""


class Forked(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an order."""

    pid: int
    """Process id of the worker, which is now a child of the server. 0: the system did not allow another process."""


encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(ForkOrder).decode
decode_answer = msgspec.msgpack.Decoder(Forked).decode
decode_take_over = msgspec.msgpack.Decoder(TakeOver).decode
