"""Starts the servers of the C# tests with a nursery that is a fork of one process, as `tests/server/nursery_source.py` does.

.NET kills and waits for a process of its own, `serve.py`, which holds a connection to the source: when that ends, the
source ends the server.
"""

import json
import os
import selectors
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from server.stdio.adopted import can_adopt
from server.worker import launcher
from tests.csharp.serve import SOURCE
from tests.server import nursery_source
from tests.server.forked_server import become_server, import_everything
from tests.server.nursery_source import Process
from tests.server.start_order import PACKET_BYTES


@contextmanager
def opened(folder: Path) -> Generator[Mapping[str, str]]:
    """The variables with which .NET starts servers, from a source where the system can do it."""
    if sys.platform != "linux" or not can_adopt():
        yield {"DEVICEOPS_SERVER_COMMAND": f"{sys.executable} -m server"}
        return
    path = folder / "source"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        command = [sys.executable, "-m", "tests.csharp.server_source"]
        source = _started(command, listener.fileno())
    try:
        yield {"DEVICEOPS_SERVER_COMMAND": f"{sys.executable} -m tests.csharp.serve", SOURCE: str(path)}
    finally:
        source.kill()
        source.wait()
        assert source.stdout is not None
        source.stdout.close()


def _started(command: Sequence[str], listener: int) -> Process:
    """A fork of the test session's own source, which has imported the same; where there is none, a new process."""
    environment, forks = launcher.environment(), nursery_source.present()
    if forks is not None and forks.fits(os.environ):
        return forks.start(command, environment, 2, stdin=listener)
    return subprocess.Popen(command, stdin=listener, stdout=subprocess.PIPE, env=environment, text=True)


class _Servers:
    """The servers that run, each with the connection that asked for it."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def run(self) -> None:
        """Start and end servers until the process is ended. Returns in a forked nursery, at its end."""
        while True:
            ready = [key for key, _ in self._selector.select()]
            # Ends first: a server that is started again takes over port and state of the one before.
            for key in ready:
                if key.data is not None:
                    self._end(*key.data)
            if any(key.fileobj is self._listener for key in ready) and self._start(self._listener.accept()[0]):
                return

    def _start(self, door: socket.socket) -> bool:
        """Start a server. True in its nursery, at the nursery's end."""
        packet, fds, _, _ = socket.recv_fds(door, PACKET_BYTES, 3)
        pid = os.fork()
        if not pid:
            self._selector.close()
            self._listener.close()
            door.close()
            order = json.loads(packet)
            os.chdir(order["folder"])
            become_server(order["command"], order["environment"], dict(enumerate(fds)))
            return True
        for fd in fds:
            os.close(fd)
        ended = os.pidfd_open(pid)
        for watched in (door.fileno(), ended):
            self._selector.register(watched, selectors.EVENT_READ, (door, ended, pid))
        door.send(str(pid).encode())
        return False

    def _end(self, door: socket.socket, ended: int, pid: int) -> None:
        """End a server that has ended, or whose `serve.py` has."""
        if door.fileno() < 0:
            return
        for watched in (door.fileno(), ended):
            self._selector.unregister(watched)
        os.close(ended)
        gone, status = os.waitpid(pid, os.WNOHANG)
        if not gone:
            os.kill(pid, 9)
            _, status = os.waitpid(pid, 0)
        with door:
            try:
                door.send(str(os.waitstatus_to_exitcode(status)).encode())
            except BrokenPipeError:
                # `serve.py` was killed and waits for nothing.
                return


def main() -> None:
    from server.lifetime import end_with_parent

    end_with_parent()
    listener = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    import_everything()
    _Servers(listener).run()


if __name__ == "__main__":
    sys.exit(main())
