"""Which job is next: by priority, then fair turns between sessions, then by age. Bounded."""

from collections import Counter
from collections.abc import Callable

from domains.errors import ErrorReason, ResourceExhausted
from domains.processing.job import Job


class JobQueue:
    """Jobs that wait for a device."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._waiting: dict[str, Job] = {}
        self._served: Counter[str] = Counter()
        """Starts per session since the queue was last empty."""

    def __len__(self) -> int:
        return len(self._waiting)

    def check_room(self, retry_after_s: float) -> None:
        """Refuse with QUEUE_FULL before anything is stored."""
        if len(self._waiting) >= self.capacity:
            raise ResourceExhausted(
                f"the queue is full: {len(self._waiting)} jobs wait; try again in about {retry_after_s:.0f} s",
                ErrorReason.QUEUE_FULL,
                retry_after_s=retry_after_s,
                waiting=len(self._waiting),
                capacity=self.capacity,
            )

    def add(self, job: Job) -> None:
        """Let a job wait. One that was interrupted keeps its age, so it is ahead of later ones."""
        self._waiting[job.id] = job

    def drop(self, job_id: str) -> None:
        """It waits no longer (cancelled)."""
        self._waiting.pop(job_id, None)

    def next(self, fits: Callable[[Job], bool]) -> Job | None:
        """The next of those that fit; it goes on waiting."""
        candidates = (job for job in self._waiting.values() if fits(job))
        return min(candidates, key=self._rank, default=None)

    def take(self, job: Job) -> None:
        """It waits no longer: it starts."""
        del self._waiting[job.id]
        self._served[job.options.session_id] += 1
        if not self._waiting:
            self._served.clear()

    def waiting(self) -> list[Job]:
        """All of them, in the order in which they would start on a lane that takes any."""
        return sorted(self._waiting.values(), key=self._rank)

    def _rank(self, job: Job) -> tuple[int, int, float]:
        return -job.options.priority, self._served[job.options.session_id], job.create_time_s
