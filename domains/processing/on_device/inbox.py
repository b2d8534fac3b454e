"""Commands of the order loop in order of arrival, and requests to stop found among them."""

from collections import deque

from domains.processing.on_device.channel import Closed, Command, OrderChannel, StopCall
from domains.stop import Stop, StopKind, stronger

SERVER_LEFT = Stop(kind=StopKind.CANCEL, cause="the server has ended")


class Inbox:
    """Reads a channel. A running order looks for its own stop; the commands that it finds keep their order."""

    def __init__(self, channel: OrderChannel) -> None:
        self._channel = channel
        self._waiting: deque[Command] = deque()

    def take(self, timeout_s: float | None) -> Command | None:
        """The oldest command, see `OrderChannel.next`."""
        return self._waiting.popleft() if self._waiting else self._channel.next(timeout_s)

    def stop_of(self, call: int) -> Stop | None:
        """The strongest request to stop a call that has arrived. None: there is none."""
        found: Stop | None = None
        while (command := self._channel.next(0)) is not None:
            self._waiting.append(command)
        for command in self._waiting:
            if isinstance(command, Closed):
                return SERVER_LEFT
            if isinstance(command, StopCall) and command.call == call:
                found = stronger(found, command.stop)
        return found
