"""All lanes: which exist, which jobs they take, and turns ahead of the queue."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from domains.device.device import DeviceState
from domains.device.devices import Devices
from domains.errors import ErrorReason, Unavailable
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import FRONT_KINDS
from domains.processing.lanes.lane import Lane, Turn
from domains.processing.lanes.placement import Placement, placement_of
from domains.processing.lanes.room_signal import RoomSignal
from domains.processing.workers.worker import Worker
from domains.stop import Stop, StopKind


class Lanes:
    """One lane for each device whose worker is ready, and one for each kind of front work."""

    def __init__(self, devices: Devices, room: RoomSignal) -> None:
        """`room`: told when a turn begins to wait and when it ends."""
        self._devices = devices
        self._room = room
        self._lanes: list[Lane] = [Lane(_constant(kind.at_once), front=kind) for kind in FRONT_KINDS]

    def add(self, lane: Lane) -> None:
        """Add the lane of a worker that is ready."""
        self._lanes.append(lane)

    def remove(self, lane: Lane) -> None:
        """Remove the lane of a worker that is gone. Its jobs learn it from their orders; this ends waiting turns."""
        lane.closed = True
        lane.left.set()
        if lane in self._lanes:
            self._lanes.remove(lane)
        for turn in lane.turns:
            if not turn.granted.done():
                turn.granted.set_result(None)

    def of(self, device_id: str) -> Lane | None:
        """The lane of a device whose worker is ready. None: there is none."""
        return next(
            (lane for lane in self._lanes if lane.worker and lane.device_id == device_id and not lane.closed), None
        )

    def with_job(self, job_id: str) -> Lane | None:
        """The lane on which a job runs. None: the job does not run."""
        return next((lane for lane in self._lanes if job_id in lane.running), None)

    async def preempt(self, job_id: str, reason: ErrorReason, message: str) -> None:
        """Stop a job at its next safe point and wait until it has left its device; it runs again later, and the stop
        does not count against it. Does nothing for a job that runs on no device."""
        lane = self.with_job(job_id)
        if lane is not None and lane.worker is not None:
            attempt = lane.running[job_id]
            attempt.stop(Stop(kind=StopKind.PREEMPT, cause=message, reason=reason, asked_s=time.monotonic()))
            await lane.without(attempt)

    def front_job_ids(self) -> frozenset[str]:
        """Ids of the running jobs of the front process."""
        return frozenset(job_id for lane in self._lanes if lane.worker is None for job_id in lane.running)

    async def ready(self, device_id: str) -> Lane:
        """Wait until the device's worker is ready; returns its lane."""
        while (lane := self.of(device_id)) is None:
            await self._devices.until(device_id, lambda view: self.of(device_id) is not None)
        return lane

    @asynccontextmanager
    async def turn(self, lane: Lane, *, alone: bool) -> AsyncGenerator[Worker]:
        """Wait for room on a device's lane ahead of queued jobs. Raises WORKER_RESTARTING if the worker ends first."""
        assert lane.worker is not None
        turn = Turn(alone=alone)
        lane.turns.append(turn)
        self._room.tell()
        try:
            await turn.granted
            if lane.closed:
                message = (
                    f"the worker of {lane.device_id} ended before the call had its turn; try again in a few seconds"
                )
                raise Unavailable(message, ErrorReason.WORKER_RESTARTING, device_id=lane.device_id)
            yield lane.worker
        finally:
            lane.granted.discard(turn)
            lane.note_change()
            if turn in lane.turns:
                lane.turns.remove(turn)
            self._room.tell()

    def best_first(self) -> list[Lane]:
        """Lanes in the order in which they get work: degraded devices come last."""
        return sorted(self._lanes, key=self._is_degraded)

    def fits(self, lane: Lane, placement: Placement) -> bool:
        """Whether a lane may run jobs of a placement."""
        if not lane.fits(placement):
            return False
        return lane.device_id != "cpu" or not placement.leaves_cpu(self._devices.list())

    def has_other(self, placement: Placement, besides: Callable[[Lane], bool]) -> bool:
        """Whether a lane other than those of `besides` may run jobs of a placement."""
        return any(self.fits(lane, placement) for lane in self._lanes if not besides(lane))

    def has_other_than(self, job: Job, device_id: str) -> bool:
        """Whether another device takes work and may run the job."""
        placement = placement_of(job)
        return self.has_other(placement, lambda lane: lane.device_id == device_id or not self.takes_work(lane))

    def takes_work(self, lane: Lane) -> bool:
        """Whether new jobs may start on the lane. The front's lanes always accept them."""
        return lane.worker is None or self._devices.takes_work(lane.device_id)

    def _is_degraded(self, lane: Lane) -> bool:
        view = self._devices.find(lane.device_id)
        return view is not None and view.state is DeviceState.DEGRADED


def _constant(value: int) -> Callable[[], int]:
    return lambda: value
