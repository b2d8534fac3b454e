"""Reports which jobs wait for which devices."""

from collections.abc import Callable

from domains.device.status import Workload
from domains.device.workload import WorkloadMeter
from domains.processing.jobs.job import Job
from domains.processing.lanes.lane import Lane
from domains.processing.lanes.lanes import Lanes
from domains.processing.lanes.queue import JobQueue


class Backlog:
    """Reads the queue and the lanes as they are now."""

    def __init__(self, queue: JobQueue, lanes: Lanes, meter: WorkloadMeter) -> None:
        self._queue = queue
        self._lanes = lanes
        self._meter = meter

    def workload(self, device_id: str) -> Workload:
        """The running and queued work of a device, and its speed."""
        lane = self._lanes.of(device_id)
        queued = self._queue.count(lambda placement: self._lanes.fits(lane, placement)) if lane else 0
        return self._meter.workload(device_id, queued, lane.capacity if lane else 1)

    def waiting_for(self, accepts: Callable[[str], bool]) -> list[Job]:
        """Queued jobs that can run on accepted devices only. `accepts` takes a device id."""

        def accepted(lane: Lane) -> bool:
            return lane.worker is not None and accepts(lane.device_id)

        return self._queue.waiting(lambda placement: not self._lanes.has_other(placement, besides=accepted))

    def stranded_without(self, device_id: str) -> tuple[str, ...]:
        """Ids of queued jobs that no other device takes."""

        def useless(lane: Lane) -> bool:
            return lane.device_id == device_id or not self._lanes.takes_work(lane)

        stranded = self._queue.waiting(lambda placement: not self._lanes.has_other(placement, besides=useless))
        return tuple(job.id for job in stranded)
