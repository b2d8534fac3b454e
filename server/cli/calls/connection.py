"""A connection to one server: the channel, the stubs, and errors as text."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.calls.address import DEFAULT_ADDRESS, target
from server.cli.console.failure import explained

if TYPE_CHECKING:
    from deviceops.device.v1.device_service_pb2_grpc import DeviceServiceStub
    from deviceops.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
    from deviceops.memory.v1.memory_service_pb2_grpc import MemoryServiceStub
    from deviceops.model.v1.model_service_pb2_grpc import ModelServiceStub
    from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="DEVICEOPS_ADDRESS",
        metavar="HOST:PORT",
        help=f"Where the server is, also unix:PATH. Default: {DEFAULT_ADDRESS}.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print protobuf JSON on stdout and nothing else.")]

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # A restarted server is found within seconds; gRPC's default backoff grows to minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Without it, calls to a server on this machine would go through a proxy that the environment names.
    ("grpc.enable_http_proxy", 0),
)


class Connection:
    """One channel. As a context manager it converts the error of a refused call in the block to a `CliError`."""

    def __init__(self, address: str, is_alive: Callable[[], bool] | None = None) -> None:
        """`is_alive`: whether the server that this command has started still runs; None: the server is not the command's.

        Raises `CliError` (usage) for text that is no address.
        """
        import grpc

        from server.cli.calls.deadlines import Deadlines

        self.address = target(address)
        self.is_own = is_alive is not None
        """Whether the server ends with this command."""
        self.is_alive = is_alive or (lambda: True)
        """Whether a lost server can come back, so that waiting for it is useful."""
        bare = grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        self.channel = grpc.intercept_channel(bare, Deadlines(self.address))

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import grpc

        self.channel.close()
        if isinstance(error, grpc.RpcError):
            raise explained(error, self.address) from error

    def answers(self, timeout_s: float = 2.0) -> bool:
        """Whether a DeviceOps server answers. A refused connection returns False at once, no answer after `timeout_s`."""
        import grpc

        from deviceops.processing.v1 import processing_service_pb2

        try:
            self.processing.GetSystemStatus(processing_service_pb2.GetSystemStatusRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return True

    @functools.cached_property
    def inference(self) -> InferenceServiceStub:
        """Generate, GetInferenceCapabilities."""
        from deviceops.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

        return InferenceServiceStub(self.channel)

    @functools.cached_property
    def processing(self) -> ProcessingServiceStub:
        """Jobs and the server's status."""
        from deviceops.processing.v1.processing_service_pb2_grpc import ProcessingServiceStub

        return ProcessingServiceStub(self.channel)

    @functools.cached_property
    def memory(self) -> MemoryServiceStub:
        """ReadBlob."""
        from deviceops.memory.v1.memory_service_pb2_grpc import MemoryServiceStub

        return MemoryServiceStub(self.channel)

    @functools.cached_property
    def device(self) -> DeviceServiceStub:
        """ListDevices."""
        from deviceops.device.v1.device_service_pb2_grpc import DeviceServiceStub

        return DeviceServiceStub(self.channel)

    @functools.cached_property
    def model(self) -> ModelServiceStub:
        """ListModels, ScanModels."""
        from deviceops.model.v1.model_service_pb2_grpc import ModelServiceStub

        return ModelServiceStub(self.channel)


def connect(address: str | None) -> Connection:
    """A connection to the given address, or to the default one. Sends nothing yet."""
    return Connection(address or DEFAULT_ADDRESS)
