"""One run of a worker, here or on another machine, and the protocol that starts it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from server.stdio.channel import FrameChannel
from server.stdio.child import ChildProcess
from server.worker.link import WorkerLink

_EXIT_S = 5.0
"""How long a process may take to exit after its pipe has ended; later its exit status is not reported."""


class WorkerLife(Protocol):
    """A worker that was started, ready or not."""

    @property
    def link(self) -> WorkerLink:
        """The server's end of the worker."""
        ...

    @property
    def pid(self) -> int:
        """Process id."""
        ...

    async def ended(self) -> str:
        """Wait until the link has ended; returns why."""
        ...

    async def exit_detail(self) -> str:
        """How the worker exited, within seconds after the link has ended: `exit status -9`."""
        ...

    def kill(self) -> None:
        """End the worker at once, even one that hangs in a driver."""
        ...

    async def close(self) -> None:
        """End the worker if it runs, wait until it is gone, and free its resources here."""
        ...


class Launcher(Protocol):
    """Starts workers."""

    async def launch(self, name: str, end: Callable[[str], None], on_fault: Callable[[int], None]) -> WorkerLife:
        """Start the worker of the device of this name. Raises `OSError`.

        `end` ends the worker, for a reason. `on_fault` is called with the index of a scripted fault before it takes effect.
        """
        ...


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
        """SIGKILL."""
        self._process.kill()

    async def close(self) -> None:
        """Kill the process, wait until it is gone, and close the pipe."""
        self._channel.close()
        self._process.kill()
        await self._process.wait()
        self._process.close()
