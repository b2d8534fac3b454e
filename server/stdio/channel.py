"""The calling end of a frame pipe, in the parent process, with asyncio."""

import asyncio
import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import structlog

from deviceops.stdio.v1.frame_pb2 import Frame, FrameGoAway, FrameHello, FrameMetadata, FrameOpen, FramePing, FramePong
from server.stdio.call import Call, Payload
from server.stdio.child import ChildProcess
from server.stdio.credit import Allowance
from server.stdio.ending import EndKind, PipeEnd, from_close
from server.stdio.frames import FrameDecoder, FrameError, Raw, encode, encode_raw_header
from server.stdio.hello import body_limit, expect_hello, own_hello

_JOIN_BYTES = 64 * 1024  # a payload up to this is copied behind its header: cheaper than a second write
_PONG_BACKLOG_BYTES = 1024 * 1024

_log = structlog.get_logger()


class FrameChannel:
    """Makes calls to a child process over its stdin and stdout.

    Create it inside a running loop; it reads from then on. The reader never waits for a consumer or for the output. Each
    call holds at most its window of messages, so a slow consumer stops only its own call, at the sender. When the pipe
    ends, every open call ends with UNAVAILABLE, and `closed` holds the cause.
    """

    def __init__(self, child: ChildProcess, hello: FrameHello | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[PipeEnd] = loop.create_future()
        """Done when the pipe has ended."""
        self._child = child
        self._decoder = FrameDecoder()
        self._peer_hello: asyncio.Future[FrameHello | None] = loop.create_future()
        self._calls: dict[int, Call] = {}
        self._call_ids = itertools.count(1, 2)
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._ping_tokens = itertools.count(1)
        self._went_away: str | None = None
        child.write(encode(Frame(hello=hello or own_hello())))
        child.listen(self._on_bytes, self._on_end)

    @property
    def process(self) -> ChildProcess:
        """The process at the other end."""
        return self._child

    async def hello(self) -> FrameHello | None:
        """The hello of the other end; None: the pipe ended before it came."""
        return await asyncio.shield(self._peer_hello)

    async def open(
        self,
        method: str,
        message: bytes | None,
        *,
        half_close: bool = False,
        timeout_s: float | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Call:
        """Start a call of `method` (`/package.Service/Method`) with its first message, after the other end's hello.

        `message` None: the call begins without one. `half_close`: no messages follow. The other end enforces `timeout_s`.
        If the pipe has ended, or the other end has sent go-away, the returned call has ended with UNAVAILABLE. Raises
        `ValueError` for a message that is too large for the other end.
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
            if message is not None:
                await call.send(message)
            if half_close:
                call.half_close()
        except BaseException:
            call.abandon("its opening failed")
            raise
        return call

    async def ping(self, timeout_s: float) -> float:
        """Round trip in seconds. It shows that the process lives and reads, not that its work progresses.

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

    def close(self, reason: str = "closed") -> None:
        """Send go-away and close the output, which tells a child to end. Open calls end with UNAVAILABLE."""
        self._finish(PipeEnd(kind=EndKind.CLOSED_HERE, detail=reason), say=reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, frame: Frame | Raw) -> None:
        """Called by calls: put one whole frame into the output. Does nothing if the pipe has ended."""
        hello = self._peer_hello.result()
        if self.closed.done() or hello is None:
            return
        if isinstance(frame, Frame):
            self._child.write(encode(frame, body_limit(hello)))
        elif len(frame.payload) <= _JOIN_BYTES:
            self._child.write(encode_raw_header(frame.call_id, frame.payload, body_limit(hello)) + frame.payload)
        else:
            # Two writes without a wait between them stay adjacent in the pipe.
            self._child.write(encode_raw_header(frame.call_id, frame.payload, body_limit(hello)), frame.payload)

    async def drain(self) -> None:
        """Called by calls: wait until the output has room or the pipe has ended."""
        try:
            await self._child.drain()
        except OSError as error:
            self._finish(PipeEnd(kind=EndKind.BROKEN, detail=f"writing failed: {error}"))

    def _on_bytes(self, chunk: bytes) -> None:
        if self.closed.done():
            return
        try:
            for frame in self._decoder.feed(chunk):
                self._on_frame(frame)
        except FrameError as error:
            self._finish(PipeEnd(kind=EndKind.BAD_FRAME, detail=str(error)), say=str(error))
        except Exception:
            # A bug must not leave a pipe that looks alive and is not read.
            _log.exception("a bug ended a frame channel")
            self._finish(PipeEnd(kind=EndKind.BROKEN, detail="reading stopped by an unexpected error"))

    def _on_end(self, error: OSError | None) -> None:
        if error is not None:
            self._finish(PipeEnd(kind=EndKind.BROKEN, detail=f"reading failed: {error}"))
        elif self._went_away is not None:
            self._finish(PipeEnd(kind=EndKind.WENT_AWAY, detail=self._went_away))
        else:
            where = "inside a frame" if self._decoder.inside_frame else "between two frames"
            detail = f"the other process closed it or died, {where}"
            self._finish(PipeEnd(kind=EndKind.END_OF_STREAM, detail=detail))

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
        # The other end does not read: unanswered pings show that, and pongs must not pile up.
        if self._child.backlog_bytes < _PONG_BACKLOG_BYTES:
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
        """End everything that waits on this pipe, and close this side of it. Only the first call has an effect."""
        if self.closed.done():
            return
        if say is not None:
            self._child.write(encode(Frame(go_away=FrameGoAway(reason=say))))
        self.closed.set_result(end)
        if not self._peer_hello.done():
            self._peer_hello.set_result(None)
        for pong in self._pings.values():
            if not pong.done():
                pong.set_exception(ConnectionError(end.detail))
        for call in self._calls.values():
            call.finish(end.as_status())
        self._calls.clear()
        self._child.close_stdin()
