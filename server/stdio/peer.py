"""The serving end of a frame pipe, in the child process, with threads."""

import os
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from time import monotonic

from deviceops.stdio.v1.frame_pb2 import (
    Frame,
    FrameClose,
    FrameCredit,
    FrameGoAway,
    FrameHello,
    FrameMetadata,
    FramePong,
)
from server.stdio.command import CallCancelled, Command, Ended, Granted, HalfClosed, Message, Opened
from server.stdio.ending import Code, EndKind, PipeEnd
from server.stdio.frames import FrameDecoder, FrameError, Raw, encode, encode_raw_header
from server.stdio.hello import body_limit, expect_hello, own_hello
from server.stdio.output import write_all
from server.stdio.served import ServedCalls

_READ_BYTES = 1024 * 1024


class FramePeer:
    """Serves the calls that come over two blocking descriptors.

    A daemon thread reads, answers pings at once, and puts commands into an inbox; the working thread takes them with
    `next`. So a pong shows that the process lives and reads, even while its work computes or hangs. Only the messages of
    the calls show that the work progresses.

    Every method may be called from any thread. Frames are written whole; messages of a call keep the order of one sending
    thread. The callers' credit bounds the inbox; `next` grants it as it returns messages.
    """

    def __init__(
        self,
        in_fd: int,
        out_fd: int,
        hello: FrameHello | None = None,
        tell: Callable[[Command | Granted], None] | None = None,
    ) -> None:
        """Send the hello and start to read. `in_fd` and `out_fd` come from `pipe.protect_stdout`.

        `tell`: the reader passes it each command, in place of the inbox; it must not wait. Call `took` for each message
        that was taken.
        """
        self._in_fd = in_fd
        self._out_fd = out_fd
        self._inbox: SimpleQueue[Command] = SimpleQueue()
        self._put: Callable[[Command], None] = tell or self._inbox.put
        self._tell_grant = tell
        self._writing = threading.Lock()
        self._ending = threading.Lock()
        self._calls = ServedCalls()
        self._peer_hello: FrameHello | None = None
        self._end: PipeEnd | None = None
        with self._writing:
            self._emit(encode(Frame(hello=hello or own_hello())))
        threading.Thread(target=self._read, name="frame-reader", daemon=True).start()

    def next(self, timeout_s: float | None = None) -> Command | None:
        """Wait up to `timeout_s` (None: without limit) for the next command. Returns None if none came."""
        try:
            command = self._inbox.get(timeout=timeout_s) if timeout_s != 0 else self._inbox.get_nowait()
        except Empty:
            return None
        if isinstance(command, Message):
            self.took(command.call_id)
        return command

    def send(self, call_id: int, data: bytes, timeout_s: float | None = None) -> bool:
        """Send one serialised message, after waiting up to `timeout_s` (None: without limit) for credit.

        False: not sent, because the call or the pipe has ended, or no credit came in time. A cancelled call may send until
        it is closed. Raises `ValueError` for a message that is too large for the caller.
        """
        return self._send(Frame(call_id=call_id, message=data), call_id, timeout_s)

    def send_raw(self, call_id: int, data: bytes, timeout_s: float | None = None) -> bool:
        """`send` for raw bytes, which are written without a copy."""
        return self._send(Raw(call_id, data), call_id, timeout_s)

    def try_send(self, call_id: int, data: bytes, *, raw: bool = False) -> bool:
        """`send` without waiting: False if there is no credit. For messages that a newer one replaces."""
        return self._send(Raw(call_id, data) if raw else Frame(call_id=call_id, message=data), call_id, 0.0)

    def close(
        self,
        call_id: int,
        code: Code = Code.OK,
        message: str = "",
        *,
        details: bytes = b"",
        trailers: Sequence[tuple[str, str]] = (),
    ) -> bool:
        """End a call; needs no credit. False: the call has ended before. `details`: a serialised `google.rpc.Status`."""
        body = FrameClose(
            status_code=code,
            status_message=message,
            status_details=details,
            trailers=[FrameMetadata(key=key, value=value) for key, value in trailers],
        )
        data = encode(Frame(call_id=call_id, close=body), self._body_limit())
        with self._writing:
            return self._calls.close(call_id) and self._emit(data)

    def go_away(self, reason: str) -> None:
        """Tell the caller that this end accepts no new calls. Open calls continue until they are closed."""
        with self._writing:
            self._emit(encode(Frame(go_away=FrameGoAway(reason=reason, last_call_id=self._calls.last_id))))

    def _body_limit(self) -> int:
        return body_limit(self._peer_hello or FrameHello())

    def _send(self, frame: Frame | Raw, call_id: int, timeout_s: float | None) -> bool:
        limit = self._body_limit()
        pieces = (
            (encode(frame, limit),)
            if isinstance(frame, Frame)
            else (encode_raw_header(frame.call_id, frame.payload, limit), frame.payload)
        )
        until = None if timeout_s is None else monotonic() + timeout_s
        while self._calls.wait_for_credit(call_id, until):
            with self._writing:
                # Taken under the writing lock, so that no message follows its call's close.
                if self._calls.take_credit(call_id):
                    return self._emit(*pieces)
        return False

    def took(self, call_id: int) -> None:
        """Count a message that the work has taken, and grant credit when it is due."""
        with self._writing:  # as in `_send`: no grant follows the call's close
            grant = self._calls.taken(call_id)
            if grant:
                self._emit(encode(Frame(call_id=call_id, credit=FrameCredit(messages=grant))))

    def _emit(self, *pieces: bytes) -> bool:
        """Write one frame; the caller holds `_writing`. False: the pipe has ended."""
        if self._end is not None:
            return False
        try:
            write_all(self._out_fd, *pieces)
        except OSError as error:
            self._finish(PipeEnd(kind=EndKind.BROKEN, detail=f"writing failed: {error}"))
            return False
        return True

    def _read(self) -> None:
        end = PipeEnd(kind=EndKind.BROKEN, detail="reading stopped by an unexpected error")
        try:
            end = self._read_to_the_end()
        except FrameError as error:
            end = PipeEnd(kind=EndKind.BAD_FRAME, detail=str(error))
            self.go_away(end.detail)
        except OSError as error:
            end = PipeEnd(kind=EndKind.BROKEN, detail=f"reading failed: {error}")
        finally:
            self._finish(end)
            self._close_pipe()

    def _read_to_the_end(self) -> PipeEnd:
        decoder = FrameDecoder()
        went_away: str | None = None
        while chunk := os.read(self._in_fd, _READ_BYTES):
            for frame in decoder.feed(chunk):
                if isinstance(frame, Frame) and frame.HasField("go_away"):
                    went_away = frame.go_away.reason
                else:
                    self._on_frame(frame)
        if went_away is not None:
            return PipeEnd(kind=EndKind.WENT_AWAY, detail=went_away)
        where = "inside a frame" if decoder.inside_frame else "between two frames"
        return PipeEnd(
            kind=EndKind.END_OF_STREAM, detail=f"the process that started this one closed it or died, {where}"
        )

    def _on_frame(self, frame: Frame | Raw) -> None:
        if self._peer_hello is None:
            self._peer_hello = expect_hello(frame)
        elif isinstance(frame, Raw):
            self._on_message(Message(frame.call_id, frame.payload, raw=True))
        elif frame.HasField("ping"):
            with self._writing:
                self._emit(encode(Frame(pong=FramePong(token=frame.ping.token))))
        elif frame.HasField("open"):
            self._on_open(frame, self._peer_hello.initial_credit_messages)
        else:
            self._on_call_frame(frame)

    def _on_open(self, frame: Frame, credit_messages: int) -> None:
        self._calls.open(frame.call_id, credit_messages)
        begin = frame.open
        timeout_s = begin.timeout.ToNanoseconds() / 1e9 if begin.HasField("timeout") else None
        metadata = tuple((entry.key, entry.value) for entry in begin.metadata)
        self._tell(Opened(frame.call_id, begin.method, timeout_s, metadata))

    def _on_call_frame(self, frame: Frame) -> None:
        is_open = self._calls.is_open(frame.call_id)
        match frame.WhichOneof("body"):
            case "message":
                self._on_message(Message(frame.call_id, frame.message))
            case "credit":
                self._calls.granted(frame.call_id, frame.credit.messages)
                if self._tell_grant is not None:
                    self._tell_grant(Granted(frame.call_id))
            case "half_close" if is_open:
                self._tell(HalfClosed(frame.call_id))
            case "cancel" if is_open:
                self._tell(CallCancelled(frame.call_id, frame.cancel.reason))
            case "half_close" | "cancel":
                return  # the frame crossed with this end's close
            case kind:
                raise FrameError(f"a {kind} frame from the end that makes calls")

    def _on_message(self, message: Message) -> None:
        if self._calls.arrived(message.call_id):
            self._tell(message)

    def _tell(self, command: Command) -> None:
        """Put a command into the inbox, unless `Ended` is in it: a failed write can end the pipe while the reader reads."""
        with self._ending:
            if self._end is None:
                self._put(command)

    def _close_pipe(self) -> None:
        """Close the pipe's descriptors, so that the other end sees the end even while the work still computes."""
        with self._writing:  # `_end` is set: no thread writes after this
            os.close(self._out_fd)
        os.close(self._in_fd)

    def _finish(self, end: PipeEnd) -> None:
        """Put `Ended` into the inbox, and end every call. Only the first call has an effect."""
        with self._ending:
            if self._end is not None:
                return
            self._end = end
            self._put(Ended(end))
        self._calls.close_all()
