"""The asyncio end of a frame pipe: the process that started a child and calls it."""

import asyncio
import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from deviceops.stdio.v1.frame_pb2 import Frame, FrameGoAway, FrameHello, FrameMetadata, FrameOpen, FramePing, FramePong
from server.stdio.call import Call, Payload
from server.stdio.credit import Allowance
from server.stdio.ending import EndKind, PipeEnd, from_close
from server.stdio.frames import FrameDecoder, FrameError, Raw, encode, encode_raw_header
from server.stdio.hello import body_limit, expect_hello, own_hello

STREAM_LIMIT_BYTES = 4 * 1024 * 1024
"""The `limit` to give to `asyncio.create_subprocess_exec`: with asyncio's 64 KiB a picture takes dozens of turns."""

_READ_BYTES = 1024 * 1024
_JOIN_BYTES = 64 * 1024  # a payload up to this is copied behind its header: cheaper than a second write
_PONG_BACKLOG_BYTES = 1024 * 1024


class FrameChannel:
    """Calls to a child process over its stdin and stdout.

    Create it inside a running loop; it reads from then on. The reader never waits for a consumer or for the output:
    each call holds at most its window of messages, so a slow consumer stops its own call at the sender and nothing
    else. When the pipe ends, for whatever reason, every open call ends with UNAVAILABLE and `closed` holds the cause.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: FrameHello | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[PipeEnd] = loop.create_future()
        """Done when the pipe is over."""
        self._reader = reader
        self._writer = writer
        self._peer_hello: asyncio.Future[FrameHello | None] = loop.create_future()
        self._calls: dict[int, Call] = {}
        self._call_ids = itertools.count(1, 2)
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._ping_tokens = itertools.count(1)
        self._went_away: str | None = None
        self._emit(encode(Frame(hello=hello or own_hello())))
        self._reading = loop.create_task(self._read())

    async def hello(self) -> FrameHello | None:
        """What the other end said first; None where the pipe ended before it said anything."""
        return await asyncio.shield(self._peer_hello)

    async def open(
        self,
        method: str,
        message: bytes,
        *,
        half_close: bool = False,
        timeout_s: float | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Call:
        """Start a call of `method` (`/package.Service/Method`) with its first message; waits for the other end's hello.

        `half_close` says that no more messages follow. `timeout_s` is kept by the other end. On a pipe that is over, or
        whose other end said go-away, the call comes back ended, with UNAVAILABLE. Raises `ValueError` where the message
        is larger than the other end accepts.
        """
        hello = await self.hello()
        call = Call(self, next(self._call_ids), method, Allowance(hello.initial_credit_messages if hello else 0))
        over = self._over()
        if over is not None:
            call.finish(over.as_status())
            return call
        begin = FrameOpen(method=method, metadata=[FrameMetadata(key=key, value=value) for key, value in metadata])
        if timeout_s is not None:
            begin.timeout.FromNanoseconds(round(max(0.0, timeout_s) * 1e9))
        self.write(Frame(call_id=call.id, open=begin))
        self._calls[call.id] = call
        try:
            await call.send(message)
            if half_close:
                call.half_close()
        except BaseException:
            call.abandon("its opening failed")
            raise
        return call

    async def ping(self, timeout_s: float) -> float:
        """Round trip in seconds. It tells that the process lives and reads, not that its work moves on.

        Raises:
            TimeoutError: no pong came in time.
            ConnectionError: the pipe ended first.
        """
        loop = asyncio.get_running_loop()
        token, pong, start = next(self._ping_tokens), loop.create_future(), loop.time()
        self._pings[token] = pong
        try:
            async with asyncio.timeout(timeout_s):
                await self.hello()
                if self.closed.done():
                    raise ConnectionError(self.closed.result().detail)
                self.write(Frame(ping=FramePing(token=token)))
                await pong
        finally:
            del self._pings[token]
        return loop.time() - start

    async def close(self, reason: str = "closed") -> None:
        """Say go-away and close the output, a child's order to end. Open calls end with UNAVAILABLE."""
        self._finish(PipeEnd(kind=EndKind.CLOSED_HERE, detail=reason), say=reason)
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def write(self, frame: Frame | Raw) -> None:
        """For calls: put one frame into the output, whole. Does nothing on a pipe that is over."""
        hello = self._peer_hello.result()
        if self.closed.done() or hello is None:
            return
        if isinstance(frame, Frame):
            self._emit(encode(frame, body_limit(hello)))
        elif len(frame.payload) <= _JOIN_BYTES:
            self._emit(encode_raw_header(frame.call_id, frame.payload, body_limit(hello)) + frame.payload)
        else:
            self._emit(encode_raw_header(frame.call_id, frame.payload, body_limit(hello)), frame.payload)

    async def drain(self) -> None:
        """For calls: wait until the output has room again, or the pipe is over."""
        try:
            await self._writer.drain()
        except OSError as error:
            self._finish(PipeEnd(kind=EndKind.BROKEN, detail=f"writing failed: {error}"))

    def _emit(self, *pieces: bytes) -> None:
        """Adjacent writes without a wait between them stay adjacent on the wire."""
        if not self._writer.is_closing():
            for piece in pieces:
                self._writer.write(piece)

    async def _read(self) -> None:
        end = PipeEnd(kind=EndKind.BROKEN, detail="reading stopped by an unexpected error")
        say: str | None = None
        try:
            end = await self._read_to_the_end()
        except FrameError as error:
            say = str(error)
            end = PipeEnd(kind=EndKind.BAD_FRAME, detail=say)
        except OSError as error:
            end = PipeEnd(kind=EndKind.BROKEN, detail=f"reading failed: {error}")
        finally:
            self._finish(end, say)

    async def _read_to_the_end(self) -> PipeEnd:
        decoder = FrameDecoder()
        while chunk := await self._reader.read(_READ_BYTES):
            for frame in decoder.feed(chunk):
                self._on_frame(frame)
        if self._went_away is not None:
            return PipeEnd(kind=EndKind.WENT_AWAY, detail=self._went_away)
        where = "inside a frame" if decoder.inside_frame else "between two frames"
        return PipeEnd(kind=EndKind.END_OF_STREAM, detail=f"the other process closed it or died, {where}")

    def _on_frame(self, frame: Frame | Raw) -> None:
        if not self._peer_hello.done():
            self._peer_hello.set_result(expect_hello(frame))
        elif isinstance(frame, Raw):
            self._call(frame.call_id).deliver(Payload(frame.payload, raw=True))
        elif frame.call_id:
            self._on_call_frame(frame)
        else:
            self._on_pipe_frame(frame)

    def _on_call_frame(self, frame: Frame) -> None:
        call = self._call(frame.call_id)
        match frame.WhichOneof("body"):
            case "message":
                call.deliver(Payload(frame.message))
            case "credit":
                call.granted(frame.credit.messages)
            case "close":
                del self._calls[call.id]
                call.finish(from_close(frame.close))
            case kind:
                raise FrameError(f"a {kind} frame from the end that serves calls")

    def _on_pipe_frame(self, frame: Frame) -> None:
        match frame.WhichOneof("body"):
            case "ping":
                self._answer(frame.ping.token)
            case "pong":
                pong = self._pings.get(frame.pong.token)
                if pong is not None and not pong.done():
                    pong.set_result(None)
            case "go_away":
                self._go_away(frame.go_away)
            case kind:
                raise FrameError(f"a second {kind} frame")

    def _answer(self, token: int) -> None:
        # Nobody reads our output: then an unanswered ping is the truth, and answers must not pile up.
        if self._writer.transport.get_write_buffer_size() < _PONG_BACKLOG_BYTES:
            self.write(Frame(pong=FramePong(token=token)))

    def _go_away(self, message: FrameGoAway) -> None:
        self._went_away = message.reason
        never_began = [call_id for call_id in self._calls if call_id > message.last_call_id]
        for call_id in never_began:
            self._calls.pop(call_id).finish(self._leaving().as_status())

    def _leaving(self) -> PipeEnd:
        return PipeEnd(kind=EndKind.WENT_AWAY, detail=f"the other end goes away: {self._went_away}")

    def _over(self) -> PipeEnd | None:
        if self.closed.done():
            return self.closed.result()
        return None if self._went_away is None else self._leaving()

    def _call(self, call_id: int) -> Call:
        call = self._calls.get(call_id)
        if call is None:
            raise FrameError(f"a frame for call {call_id}, which is not open")
        return call

    def _finish(self, end: PipeEnd, say: str | None = None) -> None:
        """Once: end everything that waits on this pipe, and close our side of it."""
        if self.closed.done():
            return
        if say is not None:
            self._emit(encode(Frame(go_away=FrameGoAway(reason=say))))
        self.closed.set_result(end)
        if not self._peer_hello.done():
            self._peer_hello.set_result(None)
        for pong in self._pings.values():
            if not pong.done():
                pong.set_exception(ConnectionError(end.detail))
        for call in self._calls.values():
            call.finish(end.as_status())
        self._calls.clear()
        self._writer.close()
