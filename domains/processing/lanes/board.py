"""What waits, where jobs run, and the signal that something may start: what the dispatcher shares with its neighbours."""

import time
from collections.abc import Callable

from domains.device.devices import Devices
from domains.device.workload import WorkloadMeter
from domains.errors import ErrorReason
from domains.processing.jobs.job import Job
from domains.processing.lanes.backlog import Backlog
from domains.processing.lanes.lanes import Lanes
from domains.processing.lanes.queue import JobQueue
from domains.processing.lanes.room_signal import RoomSignal
from domains.stop import Stop, StopKind


class Board:
    """Built before everything that looks at it."""

    def __init__(self, queue: JobQueue, devices: Devices) -> None:
        self.queue = queue
        self.room = RoomSignal()
        self.meter = WorkloadMeter()
        self.lanes = Lanes(devices, self.room)
        self.backlog = Backlog(queue, self.lanes, self.meter)

    def waiting_for(self, accepts: Callable[[str], bool]) -> list[Job]:
        """See `Backlog`."""
        return self.backlog.waiting_for(accepts)

    async def interrupt(self, job_id: str, reason: ErrorReason, message: str) -> None:
        """Take a running job off its device at its next safe point; it waits again, and nothing counts against it."""
        stop = Stop(kind=StopKind.PREEMPT, cause=message, reason=reason, asked_s=time.monotonic())
        await self.lanes.stop(job_id, stop)
