"""All lanes: which there are, who may run where, and turns ahead of the queue."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from domains.device.device import DeviceState
from domains.device.devices import Devices
from domains.errors import ErrorReason, Unavailable
from domains.processing.jobs.kinds import FRONT_KINDS
from domains.processing.lanes.lane import Lane, Turn
from domains.processing.lanes.placement import Placement
from domains.processing.lanes.room_signal import RoomSignal
from domains.processing.workers.worker import Worker
from domains.stop import Stop, StopKind


class Lanes:
    """One for each device whose worker is ready, and some for work of the front process."""

    def __init__(self, devices: Devices, room: RoomSignal) -> None:
        """`room`: told when a turn waits for a lane, or has left one."""
        self._devices = devices
        self._room = room
        self._lanes: list[Lane] = [Lane(_constant(kind.at_once), front=kind) for kind in FRONT_KINDS]

    def add(self, lane: Lane) -> None:
        """A worker is ready."""
        self._lanes.append(lane)

    def remove(self, lane: Lane) -> None:
        """A worker is gone. Its jobs hear of it from their own orders; turns that wait hear it here."""
        lane.closed = True
        lane.left.set()
        if lane in self._lanes:
            self._lanes.remove(lane)
        for turn in lane.turns:
            if not turn.granted.done():
                turn.granted.set_result(None)

    def of(self, device_id: str) -> Lane | None:
        """The lane of a device whose worker is ready; None: there is none."""
        return next(
            (lane for lane in self._lanes if lane.worker and lane.device_id == device_id and not lane.closed), None
        )

    def with_job(self, job_id: str) -> Lane | None:
        """Where a job runs; None: it does not."""
        return next((lane for lane in self._lanes if job_id in lane.running), None)

    async def preempt(self, job_id: str, reason: ErrorReason, message: str) -> None:
        """Take a job off its device at its next safe point, and wait until it has left; it goes on later, and nothing
        counts against it. A job that runs on no device is left as it is."""
        lane = self.with_job(job_id)
        if lane is not None and lane.worker is not None:
            attempt = lane.running[job_id]
            attempt.stop(Stop(kind=StopKind.PREEMPT, cause=message, reason=reason, asked_s=time.monotonic()))
            await lane.without(attempt)

    def front_job_ids(self) -> frozenset[str]:
        """Of the jobs that the front carries out by itself."""
        return frozenset(job_id for lane in self._lanes if lane.worker is None for job_id in lane.running)

    async def ready(self, device_id: str) -> Lane:
        """The device's lane, once its worker is ready."""
        while (lane := self.of(device_id)) is None:
            await self._devices.until(device_id, lambda view: self.of(device_id) is not None)
        return lane

    @asynccontextmanager
    async def turn(self, lane: Lane, *, alone: bool) -> AsyncGenerator[Worker]:
        """Room on a device's lane, ahead of all jobs that wait. WORKER_RESTARTING if the worker ends first."""
        assert lane.worker is not None
        turn = Turn(alone=alone)
        lane.turns.append(turn)
        self._room.tell()
        try:
            await turn.granted
            if lane.closed:
                message = (
                    f"the worker of {lane.device_id} ended while somebody waited for it; try again in a few seconds"
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
        """In the order in which they are given work: devices that had errors come last."""
        return sorted(self._lanes, key=self._is_degraded)

    def fits(self, lane: Lane, placement: Placement) -> bool:
        """Whether a lane may run jobs of a placement. The CPU takes those that do not name it only if it is allowed, or all
        there is."""
        if not lane.fits(placement):
            return False
        if lane.device_id != "cpu" or placement.allow_cpu or placement.device_ids:
            return True
        return not any(
            view.device.id != "cpu" and view.settings.enabled and view.state is not DeviceState.LOST
            for view in self._devices.list()
        )

    def has_other(self, placement: Placement, besides: Callable[[Lane], bool]) -> bool:
        """Whether a lane that is not among these may run jobs of a placement."""
        return any(self.fits(lane, placement) for lane in self._lanes if not besides(lane))

    def takes_work(self, lane: Lane) -> bool:
        """Whether new jobs may start there: the front's lanes always do."""
        return lane.worker is None or self._devices.takes_work(lane.device_id)

    def _is_degraded(self, lane: Lane) -> bool:
        view = self._devices.find(lane.device_id)
        return view is not None and view.state is DeviceState.DEGRADED


def _constant(value: int) -> Callable[[], int]:
    return lambda: value
