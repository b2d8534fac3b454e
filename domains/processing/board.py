"""What waits, where jobs run, and the signal that something may start: what the dispatcher shares with its neighbours."""

import time
from collections.abc import Callable

from domains.device.devices import Devices
from domains.device.status import Workload
from domains.device.workload import WorkloadMeter
from domains.errors import ErrorReason
from domains.processing.backlog import Backlog
from domains.processing.job import Job
from domains.processing.job_queue import JobQueue
from domains.processing.lanes import Lanes
from domains.processing.room_signal import RoomSignal
from domains.stop import Stop, StopKind


class Board:
    """Built before everything that looks at it."""

    def __init__(self, queue: JobQueue, devices: Devices) -> None:
        self.queue = queue
        self.room = RoomSignal()
        self.meter = WorkloadMeter()
        self.lanes = Lanes(devices, self.room)
        self.backlog = Backlog(queue, self.lanes, self.meter)

    def pump(self) -> None:
        """Start what can start."""
        self.room.tell()

    def pump_soon(self) -> None:
        """Start what can start, once all have heard of the change."""
        self.room.tell_soon()

    def workload(self, device_id: str) -> Workload:
        """See `Backlog`."""
        return self.backlog.workload(device_id)

    def waiting_for(self, accepts: Callable[[str], bool]) -> list[Job]:
        """See `Backlog`."""
        return self.backlog.waiting_for(accepts)

    def stranded_without(self, device_id: str) -> tuple[str, ...]:
        """See `Backlog`."""
        return self.backlog.stranded_without(device_id)

    async def interrupt(self, job_id: str, reason: ErrorReason, message: str) -> None:
        """Take a running job off its device at its next safe point; it waits again, and nothing counts against it."""
        stop = Stop(kind=StopKind.PREEMPT, cause=message, reason=reason, asked_s=time.monotonic())
        await self.lanes.stop(job_id, stop)
