"""How a call ended, and how the pipe ended."""

from enum import IntEnum, StrEnum

import msgspec

from deviceops.stdio.v1.frame_pb2 import FrameClose


class Code(IntEnum):
    """The gRPC status codes by number, defined here so that a worker need not import grpc."""

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
    """Text for people; empty if the code is OK."""
    details: bytes = b""
    """A serialised `google.rpc.Status`; empty: no details."""
    trailers: tuple[tuple[str, str], ...] = ()
    """Trailing metadata, in order."""


class EndKind(StrEnum):
    """What ended a pipe."""

    END_OF_STREAM = "END_OF_STREAM"
    """The other process closed its end or died."""
    BAD_FRAME = "BAD_FRAME"
    """The other end broke the rules; this end sent go-away."""
    WENT_AWAY = "WENT_AWAY"
    """The other end sent go-away, then closed."""
    BROKEN = "BROKEN"
    """Reading or writing failed."""
    CLOSED_HERE = "CLOSED_HERE"
    """This end closed it."""


class PipeEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Why a pipe has ended."""

    kind: EndKind
    detail: str
    """Text for people and for the log."""

    def as_status(self) -> CloseStatus:
        """The status with which the open calls end."""
        return CloseStatus(code=Code.UNAVAILABLE, message=f"the pipe ended: {self.detail}")


def from_close(message: FrameClose) -> CloseStatus:
    """The status of a close frame. A code that gRPC does not have becomes UNKNOWN, as in gRPC."""
    known = message.status_code in Code.__members__.values()
    return CloseStatus(
        code=Code(message.status_code) if known else Code.UNKNOWN,
        message=message.status_message,
        details=message.status_details,
        trailers=tuple((entry.key, entry.value) for entry in message.trailers),
    )
