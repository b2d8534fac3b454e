"""Tracks results that followers have not read yet: a shutdown waits for them up to a limit."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from itertools import takewhile

LONGEST_WAIT_S = 600.0
"""The longest limit of `settle`; blobs that were announced earlier are dropped."""


class Unread:
    """Open streams and unread blobs of callers that follow jobs. One event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._followers: Counter[str] = Counter()
        """Open streams by the job that they follow."""
        self._told: dict[str, tuple[float, int]] = {}
        """By blob, oldest first: time of the last announcement, and number of followers that have not read it."""
        self._reads = 0
        """Number of running reads."""
        self._changed = asyncio.Event()
        """Set by the next change, which also replaces it."""

    @contextmanager
    def following(self, job_id: str) -> Generator[None]:
        """Count a stream that follows a job until the block ends."""
        self._followers[job_id] += 1
        try:
            yield
        finally:
            self._followers[job_id] -= 1
            if not self._followers[job_id]:
                del self._followers[job_id]
            self._note()

    def told(self, blob_id: str) -> None:
        """Record that a blob was announced to a follower, which may read it."""
        now = self._clock()
        _, unread = self._told.pop(blob_id, (0.0, 0))
        self._told[blob_id] = now, unread + 1
        for old in list(takewhile(lambda one: self._told[one][0] < now - LONGEST_WAIT_S, self._told)):
            del self._told[old]

    @contextmanager
    def reading(self) -> Generator[None]:
        """Count a read until the block ends."""
        self._reads += 1
        try:
            yield
        finally:
            self._reads -= 1
            self._note()

    def read(self, blob_id: str) -> None:
        """Record that a caller has read a blob to its end."""
        told_s, unread = self._told.pop(blob_id, (0.0, 0))
        if unread > 1:
            # The order by time may be wrong now; the blob is then kept longer, which does no harm.
            self._told[blob_id] = told_s, unread - 1
        self._note()

    async def settle(self, has_ended: Callable[[str], bool], limit_s: float) -> None:
        """Wait, at most `limit_s`, until followers of ended jobs have their last event, running reads are done, and the
        blobs that were announced in the last `limit_s` are read."""
        begin_s = self._clock()
        while (rest_s := self._rest_s(begin_s, has_ended, limit_s)) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), rest_s)

    def _rest_s(self, begin_s: float, has_ended: Callable[[str], bool], limit_s: float) -> float:
        """Seconds left to wait for the streams, reads and blobs that are open now."""
        since = [told_s for told_s, _ in self._told.values()]
        if self._reads or any(has_ended(job_id) for job_id in self._followers):
            since.append(begin_s)
        return min(max(since), begin_s) + limit_s - self._clock() if since else 0.0

    def _note(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
