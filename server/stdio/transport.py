"""Serves gRPC handlers over the frames of stdin and stdout: `deviceops serve --stdio`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import grpc

from deviceops.stdio.v1.frame_pb2 import FrameHello
from server.stdio.command import CallCancelled, Command, Ended, Granted, HalfClosed, Message, Opened
from server.stdio.ending import CloseStatus, Code
from server.stdio.handled_call import HandledCall
from server.stdio.peer import FramePeer
from server.stdio.writer import PipeWriter


class Details(NamedTuple):
    """Details of a call, which a generic handler reads to find the method."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...]


class StdioTransport:
    """Hosts services as `grpc.aio.Server` does, for the one process at the other end of the pipe.

    Two daemon threads read and write, so a parent that does not read delays no other client of the server.
    """

    def __init__(
        self,
        fds: tuple[int, int],
        max_message_bytes: int,
        ended: asyncio.Event | None = None,
    ) -> None:
        """`fds`: of `pipe.protect_stdout`; `ended`: set when the pipe has ended."""
        self._ended = ended or asyncio.Event()
        self._fds = fds
        self._max_message_bytes = max_message_bytes
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._calls: dict[int, HandledCall] = {}
        self._peer: FramePeer | None = None

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add services."""
        self._handlers.extend(handlers)

    def start(self, hello: FrameHello) -> None:
        """Say hello, and serve."""
        loop = asyncio.get_running_loop()
        self._writer = PipeWriter(self._fds[1])

        def tell(command: Command | Granted) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
                loop.call_soon_threadsafe(self._on_command, command)

        self._peer = FramePeer(*self._fds, hello, tell)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; open ones have `grace_s` to end, then they are closed with UNAVAILABLE."""
        peer = self._peer
        if peer is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._writer.run(lambda: peer.go_away("the server shuts down"), 256)
                await asyncio.gather(*(call.task for call in self._calls.values()), return_exceptions=True)
        status = CloseStatus(code=Code.UNAVAILABLE, message="the server shuts down")
        tasks = [call.task for call in self._calls.values()]
        for call in list(self._calls.values()):
            call.stop(status)
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)

    def _on_command(self, command: Command | Granted) -> None:
        match command:
            case Opened():
                self._open(command)
            case Ended():
                for call in self._calls.values():
                    call.stop(CloseStatus(code=Code.UNAVAILABLE, message="the pipe ended"))
                self._ended.set()
            case Message() | HalfClosed() | CallCancelled() | Granted():
                call = self._calls.get(command.call_id)
                if call is not None:
                    call.on_command(command)

    def _open(self, opened: Opened) -> None:
        assert self._peer is not None, "commands come from it"
        call = HandledCall(self._peer, self._writer, opened, self._max_message_bytes)
        self._calls[opened.call_id] = call
        call.task = asyncio.ensure_future(call.run(self._handler_of))
        call.task.add_done_callback(lambda _: self._calls.pop(opened.call_id, None))

    def _handler_of(self, opened: Opened) -> grpc.RpcMethodHandler[Any, Any] | None:
        details: Any = Details(opened.method, opened.metadata)
        services: Iterable[Callable[[Any], Any]] = (handler.service for handler in self._handlers)
        return next((found for service in services if (found := service(details)) is not None), None)
