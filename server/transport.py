"""What hosts services: a `grpc.aio.Server`, the frames of stdin and stdout, or a test."""

from collections.abc import Sequence
from typing import Protocol

import grpc


class Transport(Protocol):
    """See the module's docstring."""

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler], /) -> None:
        """Add services."""
        ...
