"""A lane: a place where jobs run. One for each device worker, and some for work of the front process itself."""

import asyncio
from collections import deque
from collections.abc import Callable

from domains.processing.job import BenchmarkWork, Job
from domains.processing.placement import FRONT_WORK, Placement
from domains.processing.worker import Worker


class Turn:
    """Somebody waits for room on a lane, ahead of all jobs."""

    def __init__(self, *, alone: bool) -> None:
        self.alone = alone
        """Nothing else may run beside it."""
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Lane:
    """What runs in one place, and what may."""

    def __init__(
        self, capacity: Callable[[], int], worker: Worker | None = None, only: tuple[type, ...] = FRONT_WORK
    ) -> None:
        """`only`: the work that a lane of the front takes; a device's takes all but the front's."""
        self.worker = worker
        """None: the front process itself."""
        self.running: dict[str, Job] = {}
        self.shared: set[str] = set()
        """Of these, the ones that had others beside them."""
        self.meant_to_end = False
        """Somebody ended its worker on purpose: its end says nothing of the jobs."""
        self.closed = False
        """Its worker is gone; it takes nothing more."""
        self.left = asyncio.Event()
        """Set when its worker is gone, and everybody was told."""
        self.turns: deque[Turn] = deque()
        self.granted: set[Turn] = set()
        self.changed = asyncio.Event()
        """Set when a job or a turn has ended; renewed each time."""
        self._capacity = capacity
        self._only = only

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
        alone = any(turn.alone for turn in self.granted) or any(map(needs_all, self.running.values()))
        return not self.closed and not alone and self.occupied < self.capacity

    def fits(self, placement: Placement) -> bool:
        """Whether this lane may ever run jobs of a placement."""
        if self.worker is None or placement.front is not None:
            return self.worker is None and placement.front in self._only
        device = self.worker.device
        return not placement.device_ids or not placement.device_ids.isdisjoint((device.id, *device.aliases))

    def begin(self, job: Job) -> None:
        """A job runs here from now on."""
        self.running[job.id] = job
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
        """Wake those who wait for the lane to become free."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def idle(self) -> None:
        """Wait until nothing runs here."""
        while self.occupied:
            await self.changed.wait()

    def grant_turns(self) -> None:
        """Let those who wait ahead of the jobs begin, in their order."""
        while self.turns and self.room and not (self.turns[0].alone and self.occupied):
            turn = self.turns.popleft()
            if not turn.granted.done():
                self.granted.add(turn)
                turn.granted.set_result(None)


def needs_all(job: Job) -> bool:
    """Whether the job has its device to itself."""
    return isinstance(job.work, BenchmarkWork) or job.suspect
