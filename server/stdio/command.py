"""The commands that a frame peer passes to the thread that works."""

import msgspec

from server.stdio.ending import PipeEnd


class Opened(msgspec.Struct, frozen=True):
    """A call began. Its messages follow."""

    call_id: int
    method: str
    """`/package.Service/Method`."""
    timeout_s: float | None = None
    """The caller's time limit in seconds from now; None: no limit."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Keys and values in order; a key may occur more than once."""


class Message(msgspec.Struct, frozen=True):
    """One message of the caller."""

    call_id: int
    data: bytes
    raw: bool = False
    """Whether it came as a raw-bytes frame, not as a serialised message."""


class HalfClosed(msgspec.Struct, frozen=True):
    """The caller sends no further messages in this call; it still reads."""

    call_id: int


class CallCancelled(msgspec.Struct, frozen=True):
    """The caller asks the call to stop. The worker stops at a safe point, reports how, and closes the call."""

    call_id: int
    reason: str


class Ended(msgspec.Struct, frozen=True):
    """The pipe and all its calls have ended. The last command."""

    cause: PipeEnd


class Granted(msgspec.Struct, frozen=True):
    """The caller granted credit. Only a peer with a `tell` function passes it on; the others wait in `send`."""

    call_id: int


Command = Opened | Message | HalfClosed | CallCancelled | Ended
