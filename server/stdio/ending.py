"""How a call ended, and how the pipe ended."""

from enum import IntEnum, StrEnum

import msgspec

from deviceops.stdio.v1.frame_pb2 import FrameClose


class Code(IntEnum):
    """The gRPC status codes, by their numbers; here so that a worker need not import grpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class CloseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended."""

    code: Code
    message: str = ""
    """For people; empty where the code is OK."""
    details: bytes = b""
    """A serialised `google.rpc.Status`; empty: no details."""
    trailers: tuple[tuple[str, str], ...] = ()
    """Trailing metadata, in order."""


class EndKind(StrEnum):
    """What ended a pipe."""

    END_OF_STREAM = "END_OF_STREAM"
    """The other process closed its end or died."""
    BAD_FRAME = "BAD_FRAME"
    """The other end broke the rules; we sent go-away."""
    WENT_AWAY = "WENT_AWAY"
    """The other end said go-away, then closed."""
    BROKEN = "BROKEN"
    """Reading or writing failed."""
    CLOSED_HERE = "CLOSED_HERE"
    """This end closed it."""


class PipeEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Why a pipe is over."""

    kind: EndKind
    detail: str
    """For people and for the log."""

    def as_status(self) -> CloseStatus:
        """What the calls that were open end with."""
        return CloseStatus(code=Code.UNAVAILABLE, message=f"the pipe ended: {self.detail}")


def from_close(message: FrameClose) -> CloseStatus:
    """A close frame as a status. A code that gRPC does not know is UNKNOWN, as in gRPC."""
    known = message.status_code in Code.__members__.values()
    return CloseStatus(
        code=Code(message.status_code) if known else Code.UNKNOWN,
        message=message.status_message,
        details=message.status_details,
        trailers=tuple((entry.key, entry.value) for entry in message.trailers),
    )
