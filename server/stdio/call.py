"""One call of a frame channel, at the caller's end."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from deviceops.stdio.v1.frame_pb2 import Frame, FrameCancel, FrameCredit, FrameHalfClose
from server.stdio.credit import Allowance, Window
from server.stdio.ending import CloseStatus
from server.stdio.frames import Raw


class Payload(NamedTuple):
    """One message of a call."""

    data: bytes
    raw: bool = False
    """Whether it came as a raw-bytes frame, not as a serialised message."""


class Line(Protocol):
    """The part of a channel that a call uses."""

    def write(self, frame: Frame | Raw) -> None:
        """Put one whole frame into the output. Raises `ValueError` for a frame that is too large for the other end."""
        ...

    async def drain(self) -> None:
        """Wait until the output has room or the pipe has ended."""
        ...


class Call:
    """One call: an async iterator of `Payload` for one consumer. It ends when the other end closes it or the pipe ends.

    The consumer first gets all payloads that arrived before the end; then `status` is set. As an async context manager,
    the call is cancelled when the block is left early, and later payloads are dropped, so that the other end never waits
    for credit from a consumer that has left.
    """

    def __init__(self, line: Line, call_id: int, method: str, allowance: Allowance) -> None:
        self.id = call_id
        self.method = method
        self.status: CloseStatus | None = None
        """The status of the call's end; None: the call is open."""
        self._line = line
        self._allowance = allowance
        self._window = Window()
        self._waiting: deque[Payload] = deque()
        self._dropping = False
        self._half_closed = False
        self._news = asyncio.Event()
        self._credit = asyncio.Event()
        self._on_end: list[Callable[[CloseStatus], None]] = []

    def on_end(self, callback: Callable[[CloseStatus], None]) -> None:
        """Call `callback` with the status when the call ends, or at once if it has."""
        if self.status is not None:
            callback(self.status)
        else:
            self._on_end.append(callback)

    async def send(self, data: bytes, *, raw: bool = False) -> bool:
        """Send one message (`raw`: as a raw-bytes frame), after waiting for credit and for room in the pipe.

        False: the call has ended, and nothing was sent. Raises `ValueError` after `half_close`, and for a message that is
        too large for the other end.
        """
        if self._half_closed:
            raise ValueError(f"call {self.id} was half-closed: it sends no more")
        while self.status is None:
            if self._allowance.take():
                self._line.write(Raw(self.id, data) if raw else Frame(call_id=self.id, message=data))
                await self._line.drain()
                return True
            self._credit.clear()
            await self._credit.wait()
        return False

    def half_close(self) -> None:
        """Tell the other end that no messages follow. A second call does nothing."""
        if self.status is None and not self._half_closed:
            self._line.write(Frame(call_id=self.id, half_close=FrameHalfClose()))
        self._half_closed = True

    def cancel(self, reason: str = "") -> None:
        """Ask the other end to stop. The call stays open until the other end closes it; further payloads may come."""
        if self.status is None:
            self._line.write(Frame(call_id=self.id, cancel=FrameCancel(reason=reason)))

    def abandon(self, reason: str = "abandoned") -> None:
        """Cancel the call, and drop all payloads that have come or will come."""
        if self.status is None and not self._dropping:
            self.cancel(reason)
        self._dropping = True
        while self._waiting:
            self._waiting.popleft()
            self._took_one()
        self._news.set()

    async def end(self) -> CloseStatus:
        """Drop further payloads, and wait for the end of the call."""
        async for _ in self:
            pass
        while self.status is None:
            self._news.clear()
            await self._news.wait()
        return self.status

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Payload:
        while not self._waiting:
            if self.status is not None or self._dropping:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        payload = self._waiting.popleft()
        self._took_one()
        return payload

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def _took_one(self) -> None:
        grant = self._window.taken()
        if grant and self.status is None:
            self._line.write(Frame(call_id=self.id, credit=FrameCredit(messages=grant)))

    # Called by the channel, which reads the pipe. None of these waits.

    def deliver(self, payload: Payload) -> None:
        """Take a message. Raises `FrameError` for one without credit."""
        self._window.arrived()
        if self._dropping:
            self._took_one()
            return
        self._waiting.append(payload)
        self._news.set()

    def granted(self, messages: int) -> None:
        """Add granted credit. Raises `FrameError` for a grant of 0 or less."""
        self._allowance.add(messages)
        self._credit.set()

    def finish(self, status: CloseStatus) -> None:
        """End the call with a status."""
        self.status = status
        self._news.set()
        self._credit.set()
        for callback in self._on_end:
            callback(status)
