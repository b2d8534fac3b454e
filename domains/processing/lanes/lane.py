"""A lane: a place where jobs run. One for each device worker, and one for each kind of work of the front process."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from domains.processing.jobs.job import Job
from domains.processing.lanes.placement import Placement
from domains.processing.workers.worker import Worker
from domains.stop import Stop


class Running(Protocol):
    """An attempt at a job, as its lane knows it. `attempts.attempt.Attempt` is the real one."""

    @property
    def job(self) -> Job:
        """As it was when the attempt began."""
        ...

    def stop(self, stop: Stop) -> None:
        """Ask it to stop at its next safe point."""
        ...


class Turn:
    """A wait for room on a lane, ahead of all jobs."""

    def __init__(self, *, alone: bool) -> None:
        self.alone = alone
        """Nothing else may run beside it."""
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Lane:
    """What runs in one place, and what may."""

    def __init__(self, capacity: Callable[[], int], worker: Worker | None = None, front: type | None = None) -> None:
        """`front`: the work of the front process that it takes; None: it takes what devices carry out."""
        self.worker = worker
        """None: the front process itself."""
        self.running: dict[str, Running] = {}
        """By job."""
        self.shared: set[str] = set()
        """Of these, the ones that had others beside them."""
        self.meant_to_end = False
        """Its worker is ended on purpose: its end says nothing of the jobs."""
        self.closed = False
        """Its worker is gone; it takes nothing more."""
        self.left = asyncio.Event()
        """Set when its worker is gone, and all who hold something of it were told."""
        self.turns: deque[Turn] = deque()
        self.granted: set[Turn] = set()
        self.changed = asyncio.Event()
        """Set when a job or a turn has ended; renewed each time."""
        self._capacity = capacity
        self._front = front

    @property
    def device_id(self) -> str:
        """Empty for the front process."""
        return self.worker.device.id if self.worker else ""

    @property
    def capacity(self) -> int:
        """How many jobs and turns may run at once."""
        return self._capacity()

    @property
    def occupied(self) -> int:
        """Jobs and turns that run."""
        return len(self.running) + len(self.granted)

    @property
    def room(self) -> bool:
        """Whether one more may run."""
        alone = any(turn.alone for turn in self.granted) or any(needs_all(one.job) for one in self.running.values())
        return not self.closed and not alone and self.occupied < self.capacity

    def fits(self, placement: Placement) -> bool:
        """Whether this lane may ever run jobs of a placement."""
        if self.worker is None or placement.front is not None:
            return self.worker is None and placement.front is self._front
        device = self.worker.device
        return not placement.device_ids or not placement.device_ids.isdisjoint((device.id, *device.aliases))

    def begin(self, attempt: Running) -> None:
        """An attempt runs here from now on."""
        self.running[attempt.job.id] = attempt
        if len(self.running) > 1:
            self.shared.update(self.running)

    def leave(self, job_id: str) -> None:
        """It does no longer."""
        del self.running[job_id]
        self.shared.discard(job_id)
        self.note_change()

    def end_worker(self, why: str) -> None:
        """End the worker's process, and start nothing more on it meanwhile."""
        self.closed = self.meant_to_end = True
        if self.worker is not None:
            self.worker.end(why)

    def note_change(self) -> None:
        """Wake all that wait for the lane to become free."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def idle(self) -> None:
        """Wait until nothing runs here."""
        while self.occupied:
            await self.changed.wait()

    async def without(self, attempt: Running) -> None:
        """Wait until an attempt does not run here any more. The job's next one may begin at once."""
        while self.running.get(attempt.job.id) is attempt:
            await self.changed.wait()

    def grant_turns(self) -> None:
        """Let the turns that wait ahead of the jobs begin, in their order."""
        while self.turns and self.room and not (self.turns[0].alone and self.occupied):
            turn = self.turns.popleft()
            if not turn.granted.done():
                self.granted.add(turn)
                turn.granted.set_result(None)


def needs_all(job: Job) -> bool:
    """Whether the job has its device to itself."""
    return job.work.alone or job.suspect
