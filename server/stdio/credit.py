"""Flow control of one call in one direction. Values only: no pipe, no lock, no clock."""

from server.stdio.frames import FrameError

INITIAL_CREDIT_MESSAGES = 16
"""How many messages of a call may be under way before its receiver has taken any."""


class Allowance:
    """The sender's side: how many messages it may send now."""

    def __init__(self, messages: int) -> None:
        self.messages = messages

    def take(self) -> bool:
        """Spend one credit. False: there is none, the message has to wait or be dropped."""
        if self.messages <= 0:
            return False
        self.messages -= 1
        return True

    def add(self, messages: int) -> None:
        """The receiver granted more. Raises `FrameError` for a grant of nothing or less."""
        if messages < 1:
            raise FrameError(f"a grant of {messages} messages; at least 1")
        self.messages += messages


class Window:
    """The receiver's side: what may still arrive, and when to grant more.

    At most `size` messages are granted or waiting to be taken at any time, so that is what a slow consumer costs.
    Grants are given by halves: one small frame for many messages.
    """

    def __init__(self, size: int = INITIAL_CREDIT_MESSAGES) -> None:
        self.size = size
        self.granted = size
        """How many messages the sender may still send."""
        self._taken = 0  # since the last grant

    def arrived(self) -> None:
        """One message came. Raises `FrameError` where the sender had no credit for it."""
        if self.granted == 0:
            raise FrameError(f"a message without credit: {self.size} are waiting already")
        self.granted -= 1

    def taken(self) -> int:
        """The consumer took one. Returns how many to grant now; 0 is the usual answer."""
        self._taken += 1
        if self._taken * 2 < self.size:
            return 0
        grant, self._taken = self._taken, 0
        self.granted += grant
        return grant
