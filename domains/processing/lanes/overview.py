"""The whole queue at one moment: what waits for which device, what is in its way, and each session's part."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from domains.device.device import DeviceState
from domains.device.devices import Devices
from domains.draining import Draining
from domains.errors import ErrorReason
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.state import JobState
from domains.processing.lanes.board import Board
from domains.processing.lanes.lane import Lane
from domains.processing.lanes.placement import Placement, placement_of
from domains.processing.lanes.waits import HeldBack

WINDOW_S = 600.0
"""Rates and shares are those of the last ten minutes."""


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """The waiting jobs of one priority."""

    priority: int
    queued: int
    oldest_wait_s: float
    estimated_wait_s: float | None
    """Seconds that a new job would wait. None: too little was measured."""


class LaneView(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one device, or the work that no device has taken yet."""

    device_id: str
    """Empty: jobs that several devices, or none, could take."""
    running: tuple[str, ...]
    free_slots: int
    depths: tuple[Depth, ...]
    """The most urgent first."""
    blocked_by: ErrorReason | None
    """The reason why nothing starts there. None: nothing is in the way, or nothing waits."""


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One session's part."""

    session_id: str
    weight: float
    queued: int
    running: int
    served_ratio: float | None
    """Its share of the run time of the window. None: nothing ran."""


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that waits."""

    lanes: tuple[LaneView, ...]
    shares: tuple[Share, ...]
    queued: int
    capacity: int
    arrivals_per_s: float | None
    """None: the server has not run for the whole window."""
    completions_per_s: float | None


class QueueOverview:
    """Reads the queue and the lanes, and remembers the arrivals and ends of the window."""

    def __init__(
        self,
        board: Board,
        jobs: Jobs,
        devices: Devices,
        held_back: HeldBack,
        draining: Draining,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._jobs = jobs
        self._devices = devices
        self._held_back = held_back
        self._draining = draining
        self._clock = clock
        self._began_s = clock()
        self._known: set[str] = set()
        """Unfinished jobs that were counted as arrivals."""
        self._arrived: deque[float] = deque()
        self._ended: deque[tuple[float, str, float]] = deque()
        """Time of the end, session, and seconds of the run."""
        jobs.listeners.append(self._note)

    def now(self) -> QueueView:
        """The queue at this moment."""
        self._forget()
        waiting, lanes = self._board.queue.waiting(), self._board.lanes
        devices = [lane for lane in lanes.best_first() if lane.worker is not None]
        bound: defaultdict[str, list[Job]] = defaultdict(list)
        for job in waiting:
            bound[self._only_device(devices, placement_of(job))].append(job)
        views = [self._view(lane, bound[lane.device_id]) for lane in devices]
        whole = self._clock() - self._began_s >= WINDOW_S
        return QueueView(
            lanes=(*views, self._unbound(bound[""], devices)),
            shares=tuple(self._shares(waiting, devices)),
            queued=len(waiting),
            capacity=self._board.queue.capacity,
            arrivals_per_s=len(self._arrived) / WINDOW_S if whole else None,
            completions_per_s=len(self._ended) / WINDOW_S if whole else None,
        )

    def _only_device(self, devices: Sequence[Lane], placement: Placement) -> str:
        """The one device that can take a placement. Empty: several can, or none."""
        able = [lane.device_id for lane in devices if self._board.lanes.fits(lane, placement)]
        return able[0] if len(able) == 1 else ""

    def _view(self, lane: Lane, jobs: Sequence[Job]) -> LaneView:
        fitting = self._board.queue.waiting(lambda placement: self._board.lanes.fits(lane, placement))
        blocked = self._blocked(lane)
        free = 0 if blocked or not lane.room else max(0, lane.capacity - lane.occupied)
        return LaneView(
            device_id=lane.device_id,
            running=tuple(lane.running),
            free_slots=free,
            depths=tuple(self._depths(jobs, lambda priority: self._wait_s(lane, fitting, priority, free))),
            blocked_by=blocked if fitting else None,
        )

    def _unbound(self, jobs: Sequence[Job], devices: Sequence[Lane]) -> LaneView:
        blocks = [self._blocked(lane) for lane in devices]
        none_takes = ErrorReason.STARTING if not devices else blocks[0] if all(blocks) else None
        return LaneView(
            device_id="",
            running=(),
            free_slots=0,
            depths=tuple(self._depths(jobs, lambda priority: None)),
            blocked_by=none_takes if jobs else None,
        )

    def _depths(self, jobs: Sequence[Job], wait_s: Callable[[int], float | None]) -> Iterable[Depth]:
        for priority in sorted({job.options.priority for job in jobs}, reverse=True):
            ages = [self._jobs.age_s(job) for job in jobs if job.options.priority == priority]
            yield Depth(priority=priority, queued=len(ages), oldest_wait_s=max(ages), estimated_wait_s=wait_s(priority))

    def _wait_s(self, lane: Lane, fitting: Sequence[Job], priority: int, free: int) -> float | None:
        """Seconds until a new job would start: when those that run and those that come first are done."""
        ahead = sum(job.options.priority >= priority for job in fitting)
        if free > ahead:
            return 0.0
        return self._board.meter.workload(lane.device_id, ahead, lane.capacity).estimated_idle_s

    def _blocked(self, lane: Lane) -> ErrorReason | None:
        if self._draining.begun:
            return ErrorReason.DRAINING
        view = self._devices.find(lane.device_id)
        if view is None or view.state is DeviceState.LOST:
            return ErrorReason.DEVICE_LOST
        if not view.settings.enabled:
            return ErrorReason.DEVICE_DISABLED
        if not self._board.lanes.takes_work(lane):
            return ErrorReason.DEVICE_RECOVERING
        if lane.closed:
            return ErrorReason.WORKER_RESTARTING
        if self._held_back(lane.device_id, occupied=bool(lane.occupied)):
            on_host = lane.device_id == "cpu"
            return ErrorReason.HOST_OUT_OF_MEMORY if on_host else ErrorReason.DEVICE_OUT_OF_MEMORY
        return None

    def _shares(self, waiting: Sequence[Job], devices: Sequence[Lane]) -> Iterable[Share]:
        queued = Counter(job.options.session_id for job in waiting)
        running = Counter(one.job.options.session_id for lane in devices for one in lane.running.values())
        served: Counter[str] = Counter()
        for _, session, ran_s in self._ended:
            served[session] += ran_s  # pyright: ignore[reportArgumentType]  # a Counter adds floats as well
        total = sum(served.values())
        for session in sorted({*queued, *running}):
            yield Share(
                session_id=session,
                weight=self._board.queue.terms.weight(session),
                queued=queued[session],
                running=running[session],
                served_ratio=served[session] / total if total else None,
            )

    def _note(self, job: Job) -> None:
        if not job.state.ended and job.id not in self._known:
            self._known.add(job.id)
            if job.state is JobState.QUEUED and not job.attempt:
                self._arrived.append(self._clock())
        elif job.state.ended and job.id in self._known:
            self._known.discard(job.id)
            ran_s = job.receipt.run_s if job.receipt is not None and job.attempt else 0.0
            self._ended.append((self._clock(), job.options.session_id, ran_s))
        self._forget()

    def _forget(self) -> None:
        oldest = self._clock() - WINDOW_S
        while self._arrived and self._arrived[0] < oldest:
            self._arrived.popleft()
        while self._ended and self._ended[0][0] < oldest:
            self._ended.popleft()
