"""A lane: a place where jobs run. One for each device worker, and one for each kind of work of the front process."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from domains.model.loaded import loaded_id
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.lanes.placement import Placement
from domains.processing.workers.worker import Worker
from domains.stop import Stop


class Running(Protocol):
    """An attempt at a job, as its lane sees it. `domains.processing.attempts.attempt.Attempt` is the real one."""

    @property
    def job(self) -> Job:
        """The job when the attempt began."""
        ...

    @property
    def claims_memory(self) -> bool:
        """Whether the attempt waits for memory; no worker has its order yet."""
        ...

    def stop(self, stop: Stop) -> None:
        """Ask the attempt to stop at its next safe point."""
        ...

    def allow(self, options: JobOptions) -> None:
        """Apply the time limits of these options from now on."""
        ...


class Turn:
    """A wait for room on a lane, ahead of all jobs."""

    def __init__(self, *, alone: bool) -> None:
        self.alone = alone
        """True: nothing else runs on the lane during this turn."""
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Lane:
    """The work that runs in one place, and the rules for more."""

    def __init__(self, capacity: Callable[[], int], worker: Worker | None = None, front: type | None = None) -> None:
        """`front`: the front work that the lane takes; None: it takes device work."""
        self.worker = worker
        """None: the lane belongs to the front process."""
        self.running: dict[str, Running] = {}
        """Running attempts by job id."""
        self.shared: set[str] = set()
        """Ids of running jobs that have shared the lane with another."""
        self.meant_to_end = False
        """The server ends the worker on purpose: its end does not count against the jobs."""
        self.closed = False
        """The worker is gone or being ended; nothing more starts here."""
        self.left = asyncio.Event()
        """Set when the worker is gone and its listeners were told."""
        self.turns: deque[Turn] = deque()
        self.granted: set[Turn] = set()
        self.leaving: list[str] = []
        """Ids of loaded models that are being unloaded: no job that needs one starts here."""
        self.changed = asyncio.Event()
        """Set when a job or a turn ends; replaced each time."""
        self._capacity = capacity
        self._front = front

    @property
    def device_id(self) -> str:
        """Id of the worker's device; empty for the front process."""
        return self.worker.device.id if self.worker else ""

    @property
    def capacity(self) -> int:
        """Maximum number of jobs and turns that run at once."""
        return self._capacity()

    @property
    def occupied(self) -> int:
        """Number of running jobs and turns."""
        return len(self.running) + len(self.granted)

    @property
    def room(self) -> bool:
        """Whether one more job or turn may run."""
        alone = any(turn.alone for turn in self.granted) or any(needs_all(one.job) for one in self.running.values())
        return not self.closed and not alone and self.occupied < self.capacity

    def fits(self, placement: Placement) -> bool:
        """Whether this lane may ever run jobs of a placement."""
        if self.worker is None or placement.front is not None:
            return self.worker is None and placement.front is self._front
        return placement.allows(self.worker.device)

    def leaving_for(self, job: Job) -> list[str]:
        """The models of a job that are being unloaded here."""
        needs = {loaded_id(asset.model_id, self.device_id) for asset in job.work.assets if asset.loaded}
        return [name for name in dict.fromkeys(self.leaving) if name in needs]

    def begin(self, attempt: Running) -> None:
        """Add an attempt that runs here."""
        self.running[attempt.job.id] = attempt
        if len(self.running) > 1:
            self.shared.update(self.running)

    def leave(self, job_id: str) -> None:
        """Remove the attempt of a job."""
        del self.running[job_id]
        self.shared.discard(job_id)
        self.note_change()

    def end_worker(self, why: str) -> None:
        """End the worker's process; nothing more starts here."""
        self.closed = self.meant_to_end = True
        if self.worker is not None:
            self.worker.end(why)

    def note_change(self) -> None:
        """Wake all tasks that wait for the lane to change."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def idle(self) -> None:
        """Wait until nothing runs here."""
        while self.occupied:
            await self.changed.wait()

    async def without(self, attempt: Running) -> None:
        """Wait until an attempt has left the lane, even if the job's next attempt begins at once."""
        while self.running.get(attempt.job.id) is attempt:
            await self.changed.wait()

    def grant_turns(self) -> None:
        """Grant waiting turns in their order, ahead of the jobs."""
        while self.turns and self.room and not (self.turns[0].alone and self.occupied):
            turn = self.turns.popleft()
            if not turn.granted.done():
                self.granted.add(turn)
                turn.granted.set_result(None)


def needs_all(job: Job) -> bool:
    """Whether the job needs its device to itself."""
    return job.work.alone or job.suspect
