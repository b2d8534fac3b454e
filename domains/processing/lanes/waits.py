"""Tells what each waiting job waits for, from the queue and the lanes as they are now."""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import msgspec

from domains.amounts import compared
from domains.device.devices import Devices
from domains.device.record import DeviceView
from domains.draining import Draining
from domains.processing.jobs.job import Job, JobRecord
from domains.processing.jobs.state import JobState
from domains.processing.lanes.board import Board
from domains.processing.lanes.lane import Lane, needs_all
from domains.processing.lanes.placement import Placement, placement_of
from domains.progress import Stage, Unit

Find = Callable[[str], Job | None]
"""The job with an id. None: it does not exist (any more)."""


class HeldBack(Protocol):
    """Implemented by `domains.processing.memory.hold_back.HoldBack`."""

    def __call__(self, device_id: str, *, occupied: bool) -> bool:
        """Whether the device starts no job now: its memory is nearly full or being freed."""
        ...


class WaitReason(StrEnum):
    """Kinds of waiting."""

    DEVICE = "device"
    """No device that may run the job takes work."""
    MEMORY = "memory"
    """The memory of its devices is nearly full, or is being freed for it."""
    TURN = "turn"
    """Other jobs come first."""
    LOAD = "load"
    """A job on its device is loading a model, and the load blocks it."""
    SESSION = "session"
    """Its session starts no jobs now: it is paused, or has reached a limit of its own."""
    SHUTDOWN = "shutdown"
    """The server shuts down; the job starts after the next start."""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """What one job waits for."""

    reason: WaitReason
    detail: str
    """For people."""
    device_id: str = ""
    """The device on which it would start first. Empty: no device takes it, or the front process runs it."""
    ahead: int | None = None
    """Waiting jobs that start before it. None: not known for this reason."""


class Waits:
    """Reads the present state on each call."""

    def __init__(
        self,
        board: Board,
        devices: Devices,
        held_back: HeldBack,
        draining: Draining,
        find: Find,
        beside: Callable[[Job, Lane], bool] = lambda job, lane: True,
    ) -> None:
        """`beside`: whether a job may run beside those that run on a lane."""
        self._queue = board.queue
        self._lanes = board.lanes
        self._devices = devices
        self._held_back = held_back
        self._beside = beside
        self._draining = draining
        self._find = find

    def now(self) -> Callable[[JobRecord], Wait | None]:
        """A function that tells what a job waits for. It orders the queue once for all lanes that take the same jobs."""
        orders: dict[frozenset[Placement], dict[str, int]] = {}

        def ahead(lane: Lane, job: Job) -> int:
            taken = frozenset(one for one in self._queue.placements() if self._lanes.fits(lane, one))
            if taken not in orders:
                waiting = self._queue.waiting(taken.__contains__)
                orders[taken] = {each.id: place for place, each in enumerate(waiting)}
            return orders[taken][job.id]

        return lambda job: self._of(job, ahead)

    def _of(self, record: JobRecord, ahead: Callable[[Lane, Job], int]) -> Wait | None:
        job = self._queue.find(record.id)
        if job is not None:
            return self._queued(job, ahead)
        lane = self._lanes.with_job(record.id) if record.state is JobState.RUNNING else None
        return None if lane is None else self._begun(record, lane)

    def _queued(self, job: Job, ahead: Callable[[Lane, Job], int]) -> Wait:
        if self._draining.begun:
            return Wait(reason=WaitReason.SHUTDOWN, detail="the server shuts down; it starts after the next start")
        if self._queue.is_held(job.options.session_id):
            detail = self._queue.terms.held_because(job.options.session_id)
            return Wait(reason=WaitReason.SESSION, detail=detail)
        placement = placement_of(job)
        lanes = [lane for lane in self._lanes.best_first() if self._lanes.fits(lane, placement)]
        working = [lane for lane in lanes if self._lanes.takes_work(lane) and not lane.closed]
        if not working:
            return Wait(reason=WaitReason.DEVICE, detail=self._without_device(placement))
        free = [lane for lane in working if not self._held_back(lane.device_id, occupied=bool(lane.occupied))]
        if not free:
            names = ", ".join(lane.device_id for lane in working)
            detail = f"the memory of {names} is nearly full, or is being freed"
            return Wait(reason=WaitReason.MEMORY, detail=detail, device_id=working[0].device_id)
        lane = min(free, key=lambda lane: ahead(lane, job))
        return self._in_line(job, lane, ahead(lane, job))

    def _in_line(self, job: Job, lane: Lane, ahead: int) -> Wait:
        if not ahead and (loading := self._load_on(lane)):
            return Wait(reason=WaitReason.LOAD, detail=loading, device_id=lane.device_id, ahead=0)
        if not ahead and lane.occupied and lane.room and not self._beside(job, lane):
            detail = f"it fits on {lane.device_id}, but not beside the {len(lane.running)} running there"
            return Wait(reason=WaitReason.MEMORY, detail=detail, device_id=lane.device_id, ahead=0)
        parts = [f"{ahead} waiting before it"] if ahead else []
        parts += [f"{len(lane.running)} running on {lane.device_id or 'the server'}"] if lane.running else []
        parts += [f"{name} is being unloaded" for name in lane.leaving_for(job)]
        parts += ["it needs the device alone"] if needs_all(job) and lane.occupied else []
        detail = ", ".join(parts) or "it starts next"
        return Wait(reason=WaitReason.TURN, detail=detail, device_id=lane.device_id, ahead=ahead)

    def _begun(self, job: JobRecord, lane: Lane) -> Wait | None:
        """What a started attempt waits for before it computes. None: nothing."""
        if lane.running[job.id].claims_memory:
            detail = f"memory of {lane.device_id} is being freed for it"
            return Wait(reason=WaitReason.MEMORY, detail=detail, device_id=lane.device_id)
        if job.stage is Stage.QUEUED and (loading := self._load_on(lane, besides=job.id)):
            return Wait(reason=WaitReason.LOAD, detail=loading, device_id=lane.device_id)
        return None

    def _load_on(self, lane: Lane, besides: str = "") -> str:
        """The load that occupies a lane, for people. Empty: none does."""
        for job_id in lane.running:
            job = self._find(job_id)
            if job_id != besides and job is not None and job.stage is Stage.LOADING:
                return f"{job_id} is loading its model on {lane.device_id}{_loaded(job)}"
        return ""

    def _without_device(self, placement: Placement) -> str:
        named = placement.device_ids
        views = self._devices.list()
        chosen = [view for view in views if not named or named & {view.device.id, *view.device.aliases}]
        missing = [name for name in sorted(named) if self._devices.find(name) is None]
        told = [*(f"{name} is not there" for name in missing), *(self._state(view) for view in chosen)]
        return "; ".join(told) or "no device is there"

    def _state(self, view: DeviceView) -> str:
        if self._devices.takes_work(view.device.id):
            return f"{view.device.id} needs `allow_cpu`, because other devices are enabled"
        state = f"{view.device.id} is {view.state}"
        return f"{state}: {view.state_reason}" if view.state_reason else state


def _loaded(job: Job) -> str:
    if job.progress is None or job.progress.at.unit is not Unit.BYTES or not job.progress.at.total:
        return ""
    done, total = compared(job.progress.at.completed, job.progress.at.total)
    return f" ({done} of {total})"
