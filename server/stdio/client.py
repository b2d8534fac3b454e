"""A gRPC channel to a server that this process starts: every generated stub works on it unchanged.

async with StdioClient("deviceops", "serve", "--stdio", "--device", "cpu") as client:
    processing = ProcessingServiceStub(client)
    print(await processing.GetSystemStatus(GetSystemStatusRequest()))
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, cast

import grpc

from deviceops.stdio.v1.frame_pb2 import FrameHello
from server.stdio.channel import FrameChannel
from server.stdio.child import ChildProcess
from server.stdio.ending import PipeEnd
from server.stdio.rpc import Rpc, UnaryRpc

Codec = Callable[[Any], Any] | None

_END_S = 60.0
"""Seconds that the child may take to end after its stdin was closed; running jobs first reach a safe point."""


class StdioClient(grpc.aio.Channel):
    """Starts a child that speaks frames over its stdin and stdout, and makes gRPC calls to it.

    The child starts with the first call or with `channel_ready`. When it dies or its pipe ends, the open calls end with
    UNAVAILABLE, and the next call starts a new child. `close`, or the end of the `async with` block, ends the child: its
    stdin is closed, which a server takes as SIGTERM. One event loop.
    """

    def __init__(self, *command: str, env: Mapping[str, str] | None = None, stderr: int | None = None) -> None:
        """`command`: the program and its arguments. `env`: its environment; None: this process's.

        `stderr`: the descriptor for its log and for all that it prints; None: this process's stderr.
        """
        super().__init__()
        self.starts = 0
        """How many children were started."""
        self._command, self._env, self._stderr = command, env, stderr
        self._starting = asyncio.Lock()
        self._child: ChildProcess | None = None
        self._frames: FrameChannel | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id of the present child; None: none was started."""
        return self._child.pid if self._child else None

    @property
    def ended(self) -> PipeEnd | None:
        """Why the last pipe ended; None: it has not."""
        return self._frames.closed.result() if self._frames and self._frames.closed.done() else None

    async def hello(self) -> FrameHello:
        """The hello of a running child, started if need be. Raises `ConnectionError` if the child ends before it."""
        hello = await (await self.frames()).hello()
        if hello is None:
            raise ConnectionError(f"the child did not say hello: {self.ended.detail if self.ended else 'it ended'}")
        return hello

    async def ping(self, timeout_s: float) -> float:
        """Round trip to the child's reader in seconds. Raises `TimeoutError` or `ConnectionError`."""
        return await (await self.frames()).ping(timeout_s)

    async def frames(self) -> FrameChannel:
        """The channel of a running child, started if need be. Raises `OSError`, `grpc.aio.UsageError` after `close`."""
        if self._frames is not None and not self._frames.closed.done() and not self._closed:
            return self._frames
        async with self._starting:
            if self._closed:
                raise grpc.aio.UsageError("Channel is closed.")
            if self._frames is None or self._frames.closed.done():
                self._reap()
                self._child = await ChildProcess.start(*self._command, env=self._env, stderr=self._stderr)
                self._frames = FrameChannel(self._child)
                self.starts += 1
            return self._frames

    def _reap(self) -> None:
        """End a child whose pipe has ended: it cannot be talked to."""
        if self._child is not None:
            self._child.close()

    async def close(self, grace: float | None = None) -> None:
        """End the child. `grace`: seconds until it is killed; None: 60."""
        async with self._starting:
            self._closed = True
        if self._child is None or self._frames is None:
            return
        self._frames.close()
        try:
            async with asyncio.timeout(_END_S if grace is None else grace):
                await self._child.wait()
        except TimeoutError:
            self._child.kill()
            await self._child.wait()
        finally:
            self._child.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """IDLE before the first call and after the child's end, SHUTDOWN after `close`, else READY."""
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        live = self._frames is not None and not self._frames.closed.done()
        return grpc.ChannelConnectivity.READY if live else grpc.ChannelConnectivity.IDLE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until a live pipe has ended, or start a child."""
        if self.get_state() == last_observed_state == grpc.ChannelConnectivity.READY and self._frames is not None:
            await asyncio.shield(self._frames.closed)
        elif self.get_state() == last_observed_state:
            await self.channel_ready()

    async def channel_ready(self) -> None:
        """Wait for the child's hello: it serves. Raises `ConnectionError` if it ends before."""
        await self.hello()

    def unary_unary(self, *args: Any, **named: Any) -> Any:
        """A callable of a method with one request and one answer."""
        return _method(self.frames, UnaryRpc, *args, streams=False, **named)

    def unary_stream(self, *args: Any, **named: Any) -> Any:
        """A callable of a method with one request and a stream of answers."""
        return _method(self.frames, Rpc, *args, streams=False, **named)

    def stream_unary(self, *args: Any, **named: Any) -> Any:
        """A callable of a method with a stream of requests and one answer."""
        return _method(self.frames, UnaryRpc, *args, streams=True, **named)

    def stream_stream(self, *args: Any, **named: Any) -> Any:
        """A callable of a method with streams both ways."""
        return _method(self.frames, Rpc, *args, streams=True, **named)


def _method(
    frames: Callable[[], Awaitable[FrameChannel]],
    kind: type[Rpc],
    method: str,
    request_serializer: Codec = None,
    response_deserializer: Codec = None,
    _registered_method: bool | None = False,
    *,
    streams: bool,
) -> Callable[..., Any]:
    def call(
        request: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Rpc:
        if credentials is not None:
            raise grpc.aio.UsageError("A pipe to a child has no call credentials; send metadata.")
        return kind(
            frames,
            method,
            request,
            streams=streams,
            timeout_s=timeout,
            metadata=cast(Any, tuple(metadata or ())),
            write=request_serializer,
            read=response_deserializer,
        )

    return call
