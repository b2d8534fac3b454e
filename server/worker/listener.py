"""The protocol through which a keeper reports about its worker."""

from typing import Protocol

from domains.errors import DeviceOpsError
from domains.processing.lanes.lane import Lane
from server.worker.life import Link


class WorkerListener(Protocol):
    """Receives what happens to a worker. `server.worker.fleet` implements it."""

    async def prepare(self, name: str, link: Link) -> None:
        """Send a new worker what it needs before its first order."""
        ...

    async def arrived(self, name: str, lane: Lane) -> None:
        """A worker is ready."""
        ...

    def fault_struck(self, device_id: str, fault_index: int) -> None:
        """The worker of a simulated device reports that a scripted fault takes effect."""
        ...

    def left(self, lane: Lane, problem: DeviceOpsError | None) -> None:
        """A worker that was ready has ended. `problem`: why; None: the server ended it on purpose."""
        ...

    def unready(self, name: str, problem: DeviceOpsError) -> None:
        """A worker ended by itself before it was ready."""
        ...

    def state_changed(self) -> None:
        """The state of a keeper has changed."""
        ...
