"""The servicer context of a call over frames: the part of `grpc.aio.ServicerContext` that servicers use."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import grpc

from server.stdio.ending import CloseStatus, Code
from server.stdio.metadata import DETAILS_KEY, Entry, to_frame

Metadata = Sequence[tuple[str, str | bytes]]


class CallContext:
    """What a servicer can ask and set in one call."""

    def __init__(self, metadata: tuple[Entry, ...], until: float | None) -> None:
        """`until`: the deadline in the time of the event loop; None: no deadline."""
        self.aborted: CloseStatus | None = None
        """The status of `abort`; None: it was not called."""
        self.trailers: Metadata = ()
        self._metadata = metadata
        self._until = until
        self._ended = False
        self._callbacks: list[Callable[[Any], None]] = []

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata | None = None
    ) -> NoReturn:
        """End the call with a status. Raises `AbortError`, as in gRPC."""
        trailers = [*self.trailers, *(trailing_metadata or ())]
        status_details = next((value for key, value in trailers if key == DETAILS_KEY), b"")
        self.aborted = CloseStatus(
            code=Code(code.value[0]),
            message=details,
            details=status_details.encode() if isinstance(status_details, str) else status_details,
            trailers=to_frame((key, value) for key, value in trailers if key != DETAILS_KEY),
        )
        raise grpc.aio.AbortError

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Set the trailers of the call."""
        self.trailers = tuple(trailing_metadata)

    def invocation_metadata(self) -> tuple[Entry, ...]:
        """The request metadata, in order."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None: no deadline."""
        return None if self._until is None else max(0.0, self._until - asyncio.get_running_loop().time())

    def peer(self) -> str:
        """The kind of the caller's address: the process that started this one."""
        return "stdio"

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with this context when the call ends."""
        self._callbacks.append(callback)

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._ended

    def end(self) -> None:
        """Call the callbacks."""
        self._ended = True
        for callback in self._callbacks:
            callback(self)
