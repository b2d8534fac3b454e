"""One call of a frame channel, as its caller sees it."""

import asyncio
from collections import deque
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
    """It came as a raw-bytes frame: not a serialised message."""


class Line(Protocol):
    """What a call needs of its channel."""

    def write(self, frame: Frame | Raw) -> None:
        """Put one frame into the output, whole. `ValueError` where the other end would refuse its size."""
        ...

    async def drain(self) -> None:
        """Wait until the output has room again, or the pipe is over."""
        ...


class Call:
    """One call: an async iterator of `Payload`, for one consumer. It ends with the other end's close or with the pipe.

    What arrived before the end is given first; then `status` tells how it ended. Use it as an async context manager
    where the loop may be left early: leaving cancels the call and drops what still arrives, so that the other end never
    waits for credit from somebody who has gone.
    """

    def __init__(self, line: Line, call_id: int, method: str, allowance: Allowance) -> None:
        self.id = call_id
        self.method = method
        self.status: CloseStatus | None = None
        """How it ended; None while it is open."""
        self._line = line
        self._allowance = allowance
        self._window = Window()
        self._waiting: deque[Payload] = deque()
        self._dropping = False
        self._half_closed = False
        self._news = asyncio.Event()
        self._credit = asyncio.Event()

    async def send(self, data: bytes, *, raw: bool = False) -> bool:
        """Send one message (with `raw`: bytes that skip protobuf), after waiting for credit and for room in the pipe.

        False: the call has ended, nothing was sent. Raises `ValueError` after `half_close`, or where the message is
        larger than the other end accepts.
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
        """Tell that no more messages follow. Doing it twice does nothing."""
        if self.status is None and not self._half_closed:
            self._line.write(Frame(call_id=self.id, half_close=FrameHalfClose()))
        self._half_closed = True

    def cancel(self, reason: str = "") -> None:
        """Ask the other end to stop. The call goes on until it closes: it may still tell how it stopped, so read on."""
        if self.status is None:
            self._line.write(Frame(call_id=self.id, cancel=FrameCancel(reason=reason)))

    def abandon(self, reason: str = "abandoned") -> None:
        """Cancel, and drop what has come and what still comes."""
        if self.status is None and not self._dropping:
            self.cancel(reason)
        self._dropping = True
        while self._waiting:
            self._waiting.popleft()
            self._took_one()
        self._news.set()

    async def end(self) -> CloseStatus:
        """Drop what still arrives, and wait for the end."""
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

    # For the channel, which reads the pipe; none of these waits.

    def deliver(self, payload: Payload) -> None:
        """A message came. Raises `FrameError` where it came without credit."""
        self._window.arrived()
        if self._dropping:
            self._took_one()
            return
        self._waiting.append(payload)
        self._news.set()

    def granted(self, messages: int) -> None:
        """The other end takes more. Raises `FrameError` for a grant of nothing."""
        self._allowance.add(messages)
        self._credit.set()

    def finish(self, status: CloseStatus) -> None:
        """The call is over."""
        self.status = status
        self._news.set()
        self._credit.set()
