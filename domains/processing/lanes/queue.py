"""Selects the next job: by priority, then fair turns between sessions, then by age. Bounded.

Jobs of one placement fit on the same lanes. Each placement has a heap of sessions, and each session in it a heap of jobs.
Selecting the next job of n takes O(log n). Entries of the heaps can be stale: an entry is checked when it comes to the
top, and is then dropped or put back in its right place.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from heapq import heapify, heappop, heappush, heapreplace

from domains.errors import ErrorReason, ResourceExhausted
from domains.processing.jobs.job import Job
from domains.processing.lanes.placement import Placement, placement_of

_SPARE = 16
"""Stale entries that a heap may keep, however few jobs wait."""

Rank = tuple[int, int, int]
"""Negative priority, starts of the session, number of the job; the smallest is next."""


class _Line:
    """The jobs of one session with one placement."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self._heap: list[tuple[int, int, str]] = []

    def add(self, job: Job) -> None:
        self.jobs[job.id] = job
        heappush(self._heap, _entry(job))

    def drop(self, job: Job) -> None:
        del self.jobs[job.id]
        if len(self._heap) > 2 * len(self.jobs) + _SPARE:
            self._heap = [_entry(each) for each in self.jobs.values()]
            heapify(self._heap)

    def first(self) -> Job:
        """The next job; the line must not be empty."""
        while True:
            told = self._heap[0]
            job = self.jobs.get(told[2])
            # The priority of a job can change while it waits; `add` has put in another entry then.
            if job is not None and _entry(job) == told:
                return job
            heappop(self._heap)


class _Lines:
    """The lines of one placement, by session."""

    def __init__(self, served: Counter[str]) -> None:
        self.of: dict[str, _Line] = {}
        self.count = 0
        """Number of jobs in all lines."""
        self._served = served
        self._heap: list[tuple[Rank, str]] = []

    def add(self, job: Job) -> None:
        session = job.options.session_id
        line = self.of.setdefault(session, _Line())
        line.add(job)
        self.count += 1
        if line.first() is job:
            heappush(self._heap, (rank(job, self._served), session))

    def drop(self, job: Job) -> None:
        session = job.options.session_id
        line = self.of[session]
        line.drop(job)
        self.count -= 1
        if not line.jobs:
            del self.of[session]
        if len(self._heap) > 2 * len(self.of) + _SPARE:
            self._heap = [(rank(one.first(), self._served), session) for session, one in self.of.items()]
            heapify(self._heap)

    def first(self) -> Job:
        """The next job of all lines; at least one job must wait.

        A session's rank rises with its starts and when its first job goes; when it falls, `add` has put in another entry.
        """
        while True:
            told, session = self._heap[0]
            line = self.of.get(session)
            if line is None:
                heappop(self._heap)
                continue
            job = line.first()
            now = rank(job, self._served)
            if told == now:
                return job
            heapreplace(self._heap, (now, session))


class JobQueue:
    """Jobs that wait for a device."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._waiting: dict[str, Job] = {}
        self._lines: dict[Placement, _Lines] = {}
        self._served: Counter[str] = Counter()
        """Starts per session since the queue was last empty."""

    def __len__(self) -> int:
        return len(self._waiting)

    def placements(self) -> Collection[Placement]:
        """The placements of the queued jobs."""
        return self._lines.keys()

    def find(self, job_id: str) -> Job | None:
        """A queued job by id. None: the job is not queued."""
        return self._waiting.get(job_id)

    def check_room(self, retry_after_s: float) -> None:
        """Raise QUEUE_FULL if there is no room, before anything is stored."""
        if len(self._waiting) >= self.capacity:
            raise ResourceExhausted(
                f"the queue is full: {len(self._waiting)} jobs wait; try again in about {retry_after_s:.0f} s",
                ErrorReason.QUEUE_FULL,
                retry_after_s=retry_after_s,
                waiting=len(self._waiting),
                capacity=self.capacity,
            )

    def add(self, job: Job) -> None:
        """Queue a job. An interrupted job keeps its number, so it is ahead of later ones."""
        self.drop(job.id)
        self._waiting[job.id] = job
        self._lines.setdefault(placement_of(job), _Lines(self._served)).add(job)

    def drop(self, job_id: str) -> None:
        """Remove a job that has ended; does nothing if it is not queued."""
        job = self._waiting.pop(job_id, None)
        if job is None:
            return
        placement = placement_of(job)
        self._lines[placement].drop(job)
        if not self._lines[placement].count:
            del self._lines[placement]

    def next(self, fits: Callable[[Placement], bool]) -> Job | None:
        """The next job whose placement fits; it stays queued."""
        candidates = (lines.first() for placement, lines in self._lines.items() if fits(placement))
        return min(candidates, key=lambda job: rank(job, self._served), default=None)

    def take(self, job: Job) -> None:
        """Remove a job that starts."""
        self.drop(job.id)
        self._served[job.options.session_id] += 1
        if not self._waiting:
            self._served.clear()

    def count(self, fits: Callable[[Placement], bool]) -> int:
        """Number of queued jobs whose placement fits."""
        return sum(lines.count for placement, lines in self._lines.items() if fits(placement))

    def waiting(self, fits: Callable[[Placement], bool] = lambda placement: True) -> list[Job]:
        """Queued jobs whose placement fits, in the order in which they would start on a lane that takes them."""
        return sorted(self._fitting(fits), key=lambda job: rank(job, self._served))

    def _fitting(self, fits: Callable[[Placement], bool]) -> Iterator[Job]:
        for placement, lines in self._lines.items():
            if fits(placement):
                for line in lines.of.values():
                    yield from line.jobs.values()


def rank(job: Job, served: Counter[str]) -> Rank:
    """The rank of a job among the queued jobs."""
    return -job.options.priority, served[job.options.session_id], job.number


def _entry(job: Job) -> tuple[int, int, str]:
    return -job.options.priority, job.number, job.id
