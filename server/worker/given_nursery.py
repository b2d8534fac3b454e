"""A nursery that the server was started with, instead of one that it starts and that imports for seconds.

The parent of the server forks twice: the first fork becomes the server, and its child, which keeps what the parent had
imported, serves as the nursery. Tests do it, see `tests/server/forked_server.py`: they start a hundred servers.
"""

import os
import socket
import sys
from collections.abc import Mapping
from typing import NamedTuple

from server.stdio.child import ChildProcess
from server.worker.fork_order import TakeOver, encode

VARIABLE = "DEVICEOPS_GIVEN_NURSERY"
"""The nursery's process id and the server's end of its socket, as `id:descriptor`. Not passed on to children."""


class GivenNursery(NamedTuple):
    """A child of this process that waits for its `TakeOver`."""

    pid: int
    """Its process id."""
    control: socket.socket
    """The server's end of its socket."""

    def take_over(self, environment: Mapping[str, str]) -> tuple[socket.socket, ChildProcess]:
        """Give it the environment and the stderr that a started nursery would have. Raises `OSError`."""
        assert sys.platform != "win32", "there is no nursery: see `adopted.can_adopt`"
        child = ChildProcess.watched(self.pid)
        socket.send_fds(self.control, [encode(TakeOver(environment=dict(environment)))], [2])
        return self.control, child


def given_nursery() -> GivenNursery | None:
    """The nursery that this process was started with; None: it was started with none."""
    told = os.environ.pop(VARIABLE, "")
    if not told:
        return None
    pid, fd = map(int, told.split(":"))
    os.set_inheritable(fd, False)
    control = socket.socket(fileno=fd)
    control.setblocking(False)
    return GivenNursery(pid, control)
