"""What a keeper needs: the link to a worker, one run of it, and what starts it, here or on another machine."""

from collections.abc import Callable
from typing import Protocol

from domains.device.simulated.fault_counts import SimSetup
from domains.processing.workers.worker import Worker


class Link(Worker, Protocol):
    """The server's end of a worker. `WorkerLink` is the one over frames."""

    @property
    def has_finished_work(self) -> bool:
        """Whether a job has run to its end in this worker."""
        ...

    async def describe(self) -> None:
        """Wait until the worker has probed its device. Raises `WorkerGone`, or why it cannot serve the device."""
        ...

    async def set_up(self, setup: SimSetup) -> None:
        """Send the script of a simulated device. Raises `WorkerGone`."""
        ...


class WorkerLife(Protocol):
    """A worker that was started, ready or not."""

    @property
    def link(self) -> Link:
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
