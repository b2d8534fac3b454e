"""Counts the calls that follow a job: an attached job is cancelled when the last of them has left."""

from collections import Counter


class Callers:
    """Following calls by job. One event loop."""

    def __init__(self) -> None:
        self._attached: Counter[str] = Counter()
        self._kept: set[str] = set()
        """Jobs that go on without a following call, because a caller asked for them detached."""

    def join(self, job_id: str, *, detached: bool) -> None:
        """Count a call that follows a job. `detached`: the job goes on when all calls have left."""
        self._attached[job_id] += 1
        if detached:
            self._kept.add(job_id)

    def keep(self, job_id: str) -> None:
        """Keep a job going without a following call: a caller asked for it again and does not follow it."""
        if job_id in self._attached:
            self._kept.add(job_id)

    def leave(self, job_id: str) -> bool:
        """Count a call that has left. True: it was the last, and no caller wants the job to go on."""
        self._attached[job_id] -= 1
        if self._attached[job_id] > 0:
            return False
        del self._attached[job_id]
        if job_id in self._kept:
            self._kept.discard(job_id)
            return False
        return True
