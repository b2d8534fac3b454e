"""Flow control of one call in one direction. Values only: no pipe, no lock, no clock."""

from server.stdio.frames import FrameError

INITIAL_CREDIT_MESSAGES = 16
"""Messages that may be sent in a call before its receiver has taken any."""


class Allowance:
    """The sender's side: the number of messages that it may send now."""

    def __init__(self, messages: int) -> None:
        self.messages = messages

    def take(self) -> bool:
        """Spend one credit. False: there is none, and the message must wait or be dropped."""
        if self.messages <= 0:
            return False
        self.messages -= 1
        return True

    def add(self, messages: int) -> None:
        """Add granted credit. Raises `FrameError` for a grant of 0 or less."""
        if messages < 1:
            raise FrameError(f"a grant of {messages} messages; at least 1")
        self.messages += messages


class Window:
    """The receiver's side: the messages that may still arrive, and when to grant more.

    At most `size` messages are granted or waiting to be taken, which bounds the memory of a slow consumer. Credit is
    granted when half of it is used: one small frame for many messages.
    """

    def __init__(self, size: int = INITIAL_CREDIT_MESSAGES) -> None:
        self.size = size
        self.granted = size
        """Number of messages that the sender may still send."""
        self._taken = 0  # since the last grant

    def arrived(self) -> None:
        """Count a message that arrived. Raises `FrameError` for one without credit."""
        if self.granted == 0:
            raise FrameError(f"a message without credit: {self.size} are waiting already")
        self.granted -= 1

    def taken(self) -> int:
        """Count a message that the consumer took. Returns the credit to grant now, mostly 0."""
        self._taken += 1
        if self._taken * 2 < self.size:
            return 0
        grant, self._taken = self._taken, 0
        self.granted += grant
        return grant
