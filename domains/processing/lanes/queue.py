"""Selects the next job: by priority, then fair shares of the sessions, then by age. Bounded.

Jobs of one placement fit on the same lanes. Each placement has a heap of sessions, and each session in it a heap of jobs.
Selecting the next job of n takes O(log n). Entries of the heaps can be stale: an entry is checked when it comes to the
top, and is then dropped or put back in its right place.

A session's share is the device time of its attempts divided by its weight; the session with the least is next. An attempt
counts as long as the mean attempt when it starts, and as long as it was when it ends. A session that was idle begins with
the same share as the others: it gets no credit for its idle time.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import Protocol

import msgspec

from domains.errors import ErrorReason, ResourceExhausted
from domains.processing.jobs.job import Job
from domains.processing.lanes.placement import Placement, placement_of

_SPARE = 16
"""Stale entries that a heap may keep, however few jobs wait."""

_MEAN_PART = 0.2
"""Part of the newest attempt in the mean time of an attempt."""

Rank = tuple[int, float, int]
"""Negative priority, share of the session, number of the job; the smallest is next."""
Held = Callable[[str], bool]
"""Whether no job of a session (id) may start now."""


class Terms(Protocol):
    """The terms of the sessions. Implemented by `domains.processing.sessions.terms.SessionTerms`."""

    def weight(self, session_id: str) -> float:
        """The session's share of a busy device against others. 1 for jobs without a session."""
        ...

    def holds_back(self, session_id: str, running: int) -> bool:
        """Whether no job of the session may start while so many run."""
        ...

    def held_because(self, session_id: str) -> str:
        """Why `holds_back` is true, for people."""
        ...


class EqualTerms:
    """Terms under which all sessions are equal."""

    def weight(self, session_id: str) -> float:
        """Every session has the same."""
        return 1.0

    def holds_back(self, session_id: str, running: int) -> bool:
        """No session is held back."""
        return False

    def held_because(self, session_id: str) -> str:
        """No session is held back."""
        return ""


class _Charge(msgspec.Struct, frozen=True):
    """The device time that is charged for an attempt until it ends."""

    session_id: str
    epoch: int
    """How many times the queue had been empty when the attempt was charged."""
    seconds: float


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

    def __init__(self, served: Mapping[str, float]) -> None:
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
        self._tidy()

    def wake(self, session: str) -> None:
        """Add a new entry for a session whose rank has fallen or that was held back."""
        if session in self.of:
            heappush(self._heap, (rank(self.of[session].first(), self._served), session))
            self._tidy()

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self.of) + _SPARE:
            self._heap = [(rank(one.first(), self._served), session) for session, one in self.of.items()]
            heapify(self._heap)

    def first(self, held: Held) -> Job | None:
        """The next job of all lines. None: all sessions are held back.

        A session's rank rises with its share and when its first job goes; when it falls, `add` or `wake` has put in another
        entry. The entries of a session that is held back are dropped; `wake` adds a new one.
        """
        while self._heap:
            told, session = self._heap[0]
            line = self.of.get(session)
            if line is None or held(session):
                heappop(self._heap)
                continue
            job = line.first()
            now = rank(job, self._served)
            if told == now:
                return job
            heapreplace(self._heap, (now, session))
        return None


class JobQueue:
    """Jobs that wait for a device."""

    def __init__(self, capacity: int, terms: Terms | None = None) -> None:
        self.capacity = capacity
        self.terms = terms or EqualTerms()
        self._waiting: dict[str, Job] = {}
        self._lines: dict[Placement, _Lines] = {}
        self._served: defaultdict[str, float] = defaultdict(float)
        """Share per session since the queue was last empty: device time divided by weight."""
        self._epoch = 0
        self._level = 0.0
        """The share of the session that started last, before its start."""
        self._mean_s = 1.0
        self._charges: defaultdict[str, deque[_Charge]] = defaultdict(deque)
        """By job: its attempts that have started and not left their lanes; the next can start before the last has left."""
        self._running: Counter[str] = Counter()
        """Such jobs per session."""
        self._queued: Counter[str] = Counter()
        """Waiting jobs per session."""

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
        session = job.options.session_id
        if not self._queued[session] and not self._running[session]:
            self._served[session] = max(self._served[session], self._level)
        self._queued[session] += 1
        self._lines.setdefault(placement_of(job), _Lines(self._served)).add(job)

    def drop(self, job_id: str) -> None:
        """Remove a job that has ended; does nothing if it is not queued."""
        job = self._waiting.pop(job_id, None)
        if job is None:
            return
        _less(self._queued, job.options.session_id)
        placement = placement_of(job)
        self._lines[placement].drop(job)
        if not self._lines[placement].count:
            del self._lines[placement]

    def next(self, fits: Callable[[Placement], bool]) -> Job | None:
        """The next job whose placement fits and whose session is not held back; it stays queued."""
        candidates = (lines.first(self.is_held) for placement, lines in self._lines.items() if fits(placement))
        return min(filter(None, candidates), key=lambda job: rank(job, self._served), default=None)

    def is_held(self, session_id: str) -> bool:
        """Whether no job of a session may start now."""
        return self.terms.holds_back(session_id, self._running[session_id])

    def take(self, job: Job) -> None:
        """Remove a job that starts. `left` must follow when it has left its lane."""
        session = job.options.session_id
        self.drop(job.id)
        charge = _Charge(session, self._epoch, self._mean_s)
        self._charges[job.id].append(charge)
        self._running[session] += 1
        self._level = max(self._level, self._served[session])
        self._served[session] += charge.seconds / self.terms.weight(session)
        if not self._waiting:
            self._served.clear()
            self._level = 0.0
            self._epoch += 1

    def left(self, job_id: str, ran_s: float) -> None:
        """Count a job that has left its lane after `ran_s`."""
        charge = self._charges[job_id].popleft()
        if not self._charges[job_id]:
            del self._charges[job_id]
        session = charge.session_id
        _less(self._running, session)
        self._mean_s += _MEAN_PART * (ran_s - self._mean_s)
        if charge.epoch == self._epoch:
            self._served[session] += (ran_s - charge.seconds) / self.terms.weight(session)
        self.wake(session)

    def wake(self, session_id: str) -> None:
        """Look at a session again: its share has fallen, or its terms have changed."""
        for lines in self._lines.values():
            lines.wake(session_id)

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


def _less(counter: Counter[str], session_id: str) -> None:
    counter[session_id] -= 1
    if not counter[session_id]:
        del counter[session_id]


def rank(job: Job, served: Mapping[str, float]) -> Rank:
    """The rank of a job among the queued jobs."""
    return -job.options.priority, served.get(job.options.session_id, 0.0), job.number


def _entry(job: Job) -> tuple[int, int, str]:
    return -job.options.priority, job.number, job.id
