"""A call object of `grpc.aio` over frames."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from typing import Any

import grpc
from grpc.aio import AioRpcError, Metadata

from server.stdio.call import Call
from server.stdio.channel import FrameChannel
from server.stdio.ending import CloseStatus, Code
from server.stdio.metadata import DETAILS_KEY, Entry, from_frame, to_frame

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009  # the type stubs lack it

Frames = Callable[[], Awaitable[FrameChannel]]


class Rpc(grpc.aio.StreamStreamCall[Any, Any]):
    """One call: an async iterator of answers. Its deadline is kept here too, so that it holds when the child hangs."""

    def __init__(
        self,
        frames: Frames,
        method: str,
        request: Any,
        *,
        streams: bool,
        timeout_s: float | None,
        metadata: tuple[Entry, ...],
        write: Callable[[Any], bytes] | None,
        read: Callable[[bytes], Any] | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._frames, self._method, self._metadata = frames, method, metadata
        self._encode, self._decode = write, read
        self._until = None if timeout_s is None else loop.time() + timeout_s
        self._status: asyncio.Future[CloseStatus] = loop.create_future()
        self._callbacks: list[Callable[[Any], None]] = []
        self._answers = self._read_all()
        self._timer = None if timeout_s is None else loop.call_later(max(0.0, timeout_s), self._expire)
        self._sender: asyncio.Task[None] | None = None
        self._opening = asyncio.ensure_future(self._open(request, streams=streams))
        if streams and request is not None:
            self._sender = asyncio.ensure_future(self._send_all(request))

    async def _open(self, request: Any, *, streams: bool) -> Call | None:
        try:
            data = None if streams else self._bytes(request)
            rest = None if self._until is None else self._until - asyncio.get_running_loop().time()
            frames = await self._frames()
            call = await frames.open(
                self._method, data, half_close=not streams, timeout_s=rest, metadata=to_frame(self._metadata)
            )
        except (ValueError, OSError) as error:
            code = Code.RESOURCE_EXHAUSTED if isinstance(error, ValueError) else Code.UNAVAILABLE
            self._finish(CloseStatus(code=code, message=str(error)))
            return None
        if self._status.done():
            call.abandon("cancelled before it began")
        call.on_end(self._finish)
        return call

    def _bytes(self, request: Any) -> bytes:
        return self._encode(request) if self._encode else request

    async def _send_all(self, requests: AsyncIterable[Any] | Iterable[Any]) -> None:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self.write(request)
            else:
                for request in requests:
                    await self.write(request)
            await self.done_writing()
        except AioRpcError:
            return  # the call has ended, and its status tells why
        except Exception as error:
            await self._stop(CloseStatus(code=Code.UNKNOWN, message=f"the request iterator raised {error!r}"))

    async def write(self, request: Any) -> None:
        """Send a request, after waiting for credit. Raises the call's error if it has ended."""
        call = await asyncio.shield(self._opening)
        try:
            sent = call is not None and await call.send(self._bytes(request), raw=True)
        except ValueError as error:
            await self._stop(CloseStatus(code=Code.RESOURCE_EXHAUSTED, message=str(error)))
            sent = False
        if not sent:
            raise self._error(await self._status)

    async def done_writing(self) -> None:
        """Tell the server that no requests follow."""
        call = await asyncio.shield(self._opening)
        if call is not None:
            call.half_close()

    async def _read_all(self) -> AsyncIterator[Any]:
        call = await asyncio.shield(self._opening)
        if call is not None:
            async for payload in call:
                if self._status.done() and self._status.result().code in (Code.CANCELLED, Code.DEADLINE_EXCEEDED):
                    break
                yield self._decode(payload.data) if self._decode else payload.data
        status = await asyncio.shield(self._status)
        if status.code == Code.CANCELLED and call is not None and call.status is None:
            raise asyncio.CancelledError  # as grpc.aio does for a call that was cancelled here
        if status.code != Code.OK:
            raise self._error(status)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._answers

    async def read(self) -> Any:
        """The next answer, or `grpc.aio.EOF`. Raises the call's error."""
        return await anext(self._answers, _EOF)

    def _expire(self) -> None:
        self._give_up(CloseStatus(code=Code.DEADLINE_EXCEEDED, message="Deadline Exceeded"))

    def cancel(self) -> bool:
        """Cancel the call. False: it has ended."""
        return self._give_up(CloseStatus(code=Code.CANCELLED, message="Locally cancelled by application!"))

    def _give_up(self, status: CloseStatus) -> bool:
        if self._status.done():
            return False
        self._finish(status)
        if self._opening.done() and not self._opening.cancelled() and (call := self._opening.result()) is not None:
            call.abandon(status.message)
        return True

    async def _stop(self, status: CloseStatus) -> None:
        await asyncio.shield(self._opening)
        self._give_up(status)

    def _finish(self, status: CloseStatus) -> None:
        if self._status.done():
            return
        self._status.set_result(status)
        if self._timer is not None:
            self._timer.cancel()
        if self._sender is not None and self._sender is not asyncio.current_task():
            self._sender.cancel()
        for callback in self._callbacks:
            callback(self)

    def _error(self, status: CloseStatus) -> AioRpcError:
        return AioRpcError(CODES[status.code], Metadata(), _trailers(status), status.message, repr(status))

    async def initial_metadata(self) -> Metadata:
        """Empty: a frame pipe has none."""
        return Metadata()

    async def trailing_metadata(self) -> Metadata:
        """The trailers, once the call has ended."""
        return _trailers(await asyncio.shield(self._status))

    async def code(self) -> grpc.StatusCode:
        """The status code, once the call has ended."""
        return CODES[(await asyncio.shield(self._status)).code]

    async def details(self) -> str:
        """The status message, once the call has ended."""
        return (await asyncio.shield(self._status)).message

    async def wait_for_connection(self) -> None:
        """Wait until the call was sent. Raises the call's error."""
        if await asyncio.shield(self._opening) is None:
            raise self._error(await self._status)

    def cancelled(self) -> bool:
        """Whether the call has ended with CANCELLED."""
        return self._status.done() and self._status.result().code == Code.CANCELLED

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._status.done()

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None: no deadline."""
        return None if self._until is None else max(0.0, self._until - asyncio.get_running_loop().time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with this call when it ends, or at once."""
        if self._status.done():
            callback(self)
        else:
            self._callbacks.append(callback)


class UnaryRpc(Rpc):
    """A call with one answer, which awaiting returns."""

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            answers = [answer async for answer in self._answers]
        except asyncio.CancelledError:
            self.cancel()
            raise
        if len(answers) != 1:
            message = f"{self._method} sent {len(answers)} answers in place of one"
            raise self._error(CloseStatus(code=Code.INTERNAL, message=message))
        return answers[0]


def _trailers(status: CloseStatus) -> Metadata:
    entries: tuple[Entry, ...] = ()
    with contextlib.suppress(ValueError):  # trailers that are not base64: the status still counts
        entries = from_frame(status.trailers)
    details: tuple[Entry, ...] = ((DETAILS_KEY, status.details),) if status.details else ()
    return Metadata(*entries, *details)
