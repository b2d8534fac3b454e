"""What waits, where jobs run, and the signal that something may start: what the dispatcher shares with its neighbours."""

from domains.device.devices import Devices
from domains.device.workload import WorkloadMeter
from domains.processing.lanes.backlog import Backlog
from domains.processing.lanes.lanes import Lanes
from domains.processing.lanes.queue import JobQueue
from domains.processing.lanes.room_signal import RoomSignal


class Board:
    """Built before everything that looks at it."""

    def __init__(self, queue: JobQueue, devices: Devices) -> None:
        self.queue = queue
        self.room = RoomSignal()
        self.meter = WorkloadMeter()
        self.lanes = Lanes(devices, self.room)
        self.backlog = Backlog(queue, self.lanes, self.meter)
