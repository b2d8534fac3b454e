"""What connects the order loop to the server: a pipe of frames, or the mailbox of an actor."""

from typing import Protocol

import msgspec

from domains.device.simulated.fault_counts import SimSetup
from domains.inference.generation import Previews
from domains.processing.workers.worker import Order, Report
from domains.stop import Stop


class Describe(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the device's description. Answered by `Described`, or `Failed` if this process cannot serve the device."""

    call: int


class SetUp(msgspec.Struct, frozen=True, kw_only=True):
    """Gives a simulated device its script. Answered by the end of the call."""

    call: int
    setup: SimSetup


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """Gives an order. Answered by the order's reports."""

    call: int
    order: Order


class Show(msgspec.Struct, frozen=True, kw_only=True):
    """Changes the previews of a generation that runs."""

    call: int
    previews: Previews


class StopCall(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a call to stop at its next safe point."""

    call: int
    stop: Stop


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """The server has left. The last command."""


Command = Describe | SetUp | Begin | Show | StopCall | Closed
"""`call`: a number that the channel gives to each call, never twice."""


class OrderChannel(Protocol):
    """The loop's end of a transport. All methods are called from the loop's thread."""

    def next(self, timeout_s: float | None) -> Command | None:
        """The next command (`timeout_s` 0: only one that has arrived; None: wait for one). None: none in time."""
        ...

    def send(self, call: int, report: Report) -> None:
        """Send a report; waits until the server can take it. Does nothing after the server has left."""
        ...

    def try_send(self, call: int, report: Report) -> None:
        """Send a report that a newer one replaces; drops it if the server cannot take it now."""
        ...

    def close(self, call: int) -> None:
        """End a call after its last report."""
        ...
