"""What a keeper tells of its worker, and to whom."""

from typing import Protocol

from domains.errors import DeviceOpsError
from domains.processing.lane import Lane
from server.worker.link import WorkerLink


class Household(Protocol):
    """What is around a worker. `server.worker.fleet` is the real one."""

    async def prepare(self, name: str, link: WorkerLink) -> None:
        """Tell the worker what it needs to know before its first order."""
        ...

    async def arrived(self, name: str, lane: Lane) -> None:
        """A worker is ready."""
        ...

    def struck(self, device_id: str, fault_index: int) -> None:
        """A worker of a simulated device tells that a scripted fault takes effect."""
        ...

    def left(self, lane: Lane, problem: DeviceOpsError | None) -> None:
        """A worker is gone; `problem`: why, where nobody had meant it."""
        ...

    def unready(self, name: str, problem: DeviceOpsError) -> None:
        """A life of a worker ended before it was ready, and nobody had meant it."""
        ...
