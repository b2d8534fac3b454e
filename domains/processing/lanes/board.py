"""The queue, the lanes, and the signal that a job may start, for all parts that share them."""

from domains.device.devices import Devices
from domains.device.workload import WorkloadMeter
from domains.processing.lanes.backlog import Backlog
from domains.processing.lanes.lanes import Lanes
from domains.processing.lanes.queue import JobQueue
from domains.processing.lanes.room_signal import RoomSignal


class Board:
    """Built before its users."""

    def __init__(self, queue: JobQueue, devices: Devices) -> None:
        self.queue = queue
        self.room = RoomSignal()
        self.meter = WorkloadMeter()
        self.lanes = Lanes(devices, self.room)
        self.backlog = Backlog(queue, self.lanes, self.meter)
