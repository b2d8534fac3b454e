"""One call that gRPC handlers serve over frames."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import structlog

from server.stdio.command import CallCancelled, Granted, HalfClosed, Message, Opened
from server.stdio.context import CallContext
from server.stdio.ending import CloseStatus, Code
from server.stdio.metadata import from_frame, to_frame
from server.stdio.peer import FramePeer
from server.stdio.writer import PipeWriter

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_CLOSE_BYTES = 1024

_log = structlog.get_logger()


class Refused(Exception):
    """The call ends with a status before its handler answers."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.status = CloseStatus(code=code, message=message)


class HandledCall:
    """Reads requests, runs the handler, writes answers and the close."""

    task: asyncio.Future[None]

    def __init__(self, peer: FramePeer, writer: PipeWriter, opened: Opened, max_message_bytes: int) -> None:
        self._peer = peer
        self._writer = writer
        self._opened = opened
        self._max_message_bytes = max_message_bytes
        self._waiting: deque[bytes] = deque()
        self._half_closed = False
        self._news = asyncio.Event()
        self._credit = asyncio.Event()
        self._stopped: CloseStatus | None = None
        self._work: asyncio.Task[CloseStatus] | None = None

    def on_command(self, command: Message | HalfClosed | CallCancelled | Granted) -> None:
        """Take a command of the caller."""
        match command:
            case Message():
                self._waiting.append(command.data)
            case HalfClosed():
                self._half_closed = True
            case CallCancelled():
                self.stop(CloseStatus(code=Code.CANCELLED, message=command.reason or "the caller cancelled"))
            case Granted():
                self._credit.set()
        self._news.set()

    def stop(self, status: CloseStatus) -> None:
        """Stop the handler, and close with `status`, unless the call has already ended."""
        self._stopped = self._stopped or status
        if self._work is not None:
            self._work.cancel()

    async def run(self, handler_of: Callable[[Opened], Handler | None]) -> None:
        """Serve the call to its close. Raises nothing."""
        self._work = asyncio.ensure_future(self._answer(handler_of))
        if self._stopped is not None:
            self._work.cancel()
        await asyncio.wait([self._work])
        if self._work.cancelled():
            status = self._stopped or CloseStatus(code=Code.CANCELLED)
        elif (error := self._work.exception()) is not None:
            _log.error("a bug ended a call over stdio", method=self._opened.method, exc_info=error)
            status = CloseStatus(code=Code.UNKNOWN, message="a fault of the server; its log has the details")
        else:
            status = self._work.result()
        await self._writer.run(lambda: self._close(status), _CLOSE_BYTES + len(status.details))

    def _close(self, status: CloseStatus) -> None:
        try:
            self._peer.close(
                self._opened.call_id, status.code, status.message, details=status.details, trailers=status.trailers
            )
        except ValueError:  # the caller's frames are too small for it
            self._peer.close(self._opened.call_id, status.code)

    async def _answer(self, handler_of: Callable[[Opened], Handler | None]) -> CloseStatus:
        timeout = asyncio.timeout(self._opened.timeout_s)
        try:
            async with timeout:
                handler = handler_of(self._opened)
                if handler is None:
                    return CloseStatus(code=Code.UNIMPLEMENTED, message=f"no method {self._opened.method}")
                return await self._handle(handler, timeout.when())
        except TimeoutError:
            if not timeout.expired():
                raise
            return CloseStatus(code=Code.DEADLINE_EXCEEDED, message="Deadline Exceeded")
        except Refused as refused:
            return refused.status

    async def _handle(self, handler: Handler, until: float | None) -> CloseStatus:
        try:
            metadata = from_frame(self._opened.metadata)
        except ValueError as error:
            raise Refused(Code.INVALID_ARGUMENT, str(error)) from error
        context = CallContext(metadata, until)
        try:
            request: Any = self._requests(handler) if handler.request_streaming else await self._one(handler)
            if handler.response_streaming:
                behaviour: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream
                async with aclosing(behaviour(request, context)) as answers:
                    async for answer in answers:
                        await self._send(handler, answer)
            else:
                behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
                await self._send(handler, await behaviour(request, context))
        except grpc.aio.AbortError:
            assert context.aborted is not None, "only `abort` raises it"
            return context.aborted
        finally:
            context.end()
        return CloseStatus(code=Code.OK, trailers=to_frame(context.trailers))

    async def _one(self, handler: Handler) -> Any:
        async for request in self._requests(handler):
            return request
        raise Refused(Code.INVALID_ARGUMENT, f"{self._opened.method} takes one request, and none came")

    async def _requests(self, handler: Handler) -> AsyncIterator[Any]:
        read = handler.request_deserializer
        while True:
            while self._waiting:
                data = self._waiting.popleft()
                if len(data) > self._max_message_bytes:
                    text = f"the message has {len(data)} bytes; at most {self._max_message_bytes}"
                    raise Refused(Code.RESOURCE_EXHAUSTED, text)
                await self._writer.run(lambda: self._peer.took(self._opened.call_id), 64)
                yield read(data) if read else data
            if self._half_closed:
                return
            self._news.clear()
            await self._news.wait()

    async def _send(self, handler: Handler, answer: Any) -> None:
        write = handler.response_serializer
        data: bytes = write(answer) if write else answer
        while True:
            self._credit.clear()
            try:
                sent = await self._writer.run(
                    lambda: self._peer.try_send(self._opened.call_id, data, raw=True), len(data) + 64
                )
            except ValueError as error:
                raise Refused(Code.RESOURCE_EXHAUSTED, str(error)) from error
            if sent:
                return
            await self._credit.wait()
