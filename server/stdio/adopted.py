"""A process that another process forked and the kernel made a child of this one. Linux only."""

import asyncio
import os
import signal
import sys
from typing import Any


class AdoptedProcess(asyncio.SubprocessTransport):
    """Gives an adopted child the interface that asyncio gives the children that it starts."""

    def __init__(self, protocol: asyncio.SubprocessProtocol, pid: int) -> None:
        """Start watching the child; call `connect_stdin` next. Raises `OSError`."""
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._pid = pid
        self._returncode: int | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._pidfd = _open_pidfd(pid)
        self._loop.add_reader(self._pidfd, self._ended)

    async def connect_stdin(self, fd: int) -> None:
        """Take over the write end of the child's stdin."""
        pipe = os.fdopen(fd, "wb", 0)
        self._stdin, _ = await self._loop.connect_write_pipe(lambda: _Input(self._protocol), pipe)

    def get_pid(self) -> int:
        """Process id. The kernel does not reuse it before `_ended` has read the exit status."""
        return self._pid

    def get_returncode(self) -> int | None:
        """Exit status, negative for a signal; None: the child runs."""
        return self._returncode

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None:
        """The transport of the child's stdin (0)."""
        return self._stdin if fd == 0 else None

    def send_signal(self, signal: int) -> None:
        """Send a signal to the child if it runs."""
        if self._returncode is None:
            os.kill(self._pid, signal)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(9)

    def is_closing(self) -> bool:
        """Whether `close` was called."""
        return self._stdin is None or self._stdin.is_closing()

    def close(self) -> None:
        """Kill the child if it runs, and close its stdin."""
        self.kill()
        if self._stdin is not None:
            self._stdin.close()

    def _ended(self) -> None:
        """Read the exit status. The child is a zombie, so this does not wait."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self._pid, 0)
        self._returncode = os.waitstatus_to_exitcode(status)
        self._protocol.process_exited()


def can_adopt() -> bool:
    """Whether this system supports adoption: Linux 5.3 or later, without a sandbox that forbids it."""
    try:
        os.close(_open_pidfd(os.getpid()))
    except OSError:
        return False
    return True


def _open_pidfd(pid: int) -> int:
    if sys.platform != "linux":
        raise OSError("only Linux hands processes over")
    return os.pidfd_open(pid)


class _Input(asyncio.BaseProtocol):
    """Passes events of the child's stdin to an `asyncio.SubprocessProtocol`."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def connection_lost(self, exc: Exception | None) -> None:
        """The child closed its end, or this end was closed."""
        self._protocol.pipe_connection_lost(0, exc)

    def pause_writing(self) -> None:
        """The pipe is full."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The pipe has room again."""
        self._protocol.resume_writing()
