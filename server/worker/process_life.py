"""One run of a worker that is a child process of this server."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from server.stdio.channel import FrameChannel
from server.stdio.child import ChildProcess
from server.worker.link import WorkerLink

_EXIT_S = 5.0
"""How long a process may take to exit after its pipe has ended; later its exit status is not reported."""


class ProcessLife:
    """A worker that is a child process, connected through frames. Implements `WorkerLife`."""

    def __init__(self, process: ChildProcess, end: Callable[[str], None], on_fault: Callable[[int], None]) -> None:
        """`end`, `on_fault`: as in `Launcher`."""
        self._process = process
        self._channel = FrameChannel(process)
        self.link = WorkerLink(self._channel, end, on_fault)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def ended(self) -> str:
        """Wait until the pipe has ended; returns why."""
        return (await asyncio.shield(self._channel.closed)).detail

    async def exit_detail(self) -> str:
        """The exit status; None if the process does not exit in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_S):
                await self._process.wait()
        return f"exit status {self._process.returncode}"

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    async def close(self) -> None:
        """Kill the process, wait until it is gone, and close the pipe."""
        self._channel.close()
        self._process.kill()
        await self._process.wait()
        self._process.close()
