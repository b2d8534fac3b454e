"""Who follows a job through the call that asked for it: when the last of them has left, the job is left too."""

from collections import Counter


class Callers:
    """Callers by job. One event loop."""

    def __init__(self) -> None:
        self._attached: Counter[str] = Counter()
        self._kept: set[str] = set()
        """Jobs that somebody asked for who wants them to go on without him."""

    def join(self, job_id: str, *, detached: bool) -> None:
        """A caller asks for a job, or for the same one again."""
        self._attached[job_id] += 1
        if detached:
            self._kept.add(job_id)

    def keep(self, job_id: str) -> None:
        """Somebody asks for the same job who does not follow it: it goes on without those who do."""
        if job_id in self._attached:
            self._kept.add(job_id)

    def leave(self, job_id: str) -> bool:
        """A caller has left. True: it was the last, and nobody wants the job to go on."""
        self._attached[job_id] -= 1
        if self._attached[job_id] > 0:
            return False
        del self._attached[job_id]
        if job_id in self._kept:
            self._kept.discard(job_id)
            return False
        return True
