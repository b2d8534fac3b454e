"""What a frame peer tells the thread that does the work."""

import msgspec

from server.stdio.ending import PipeEnd


class Opened(msgspec.Struct, frozen=True):
    """A call began. Its messages follow."""

    call_id: int
    method: str
    """`/package.Service/Method`."""
    timeout_s: float | None = None
    """How long the caller gives it, from now; None: no limit."""
    metadata: tuple[tuple[str, str], ...] = ()
    """In order; a key may occur more than once."""


class Message(msgspec.Struct, frozen=True):
    """One message of the caller."""

    call_id: int
    data: bytes
    raw: bool = False
    """It came as a raw-bytes frame: not a serialised message."""


class HalfClosed(msgspec.Struct, frozen=True):
    """The caller sends no more in this call; it still reads."""

    call_id: int


class CallCancelled(msgspec.Struct, frozen=True):
    """The caller wants the call to stop. Stop when it is safe, tell how, then close it."""

    call_id: int
    reason: str


class Ended(msgspec.Struct, frozen=True):
    """The pipe is over, and every call with it. The last command."""

    cause: PipeEnd


Command = Opened | Message | HalfClosed | CallCancelled | Ended
