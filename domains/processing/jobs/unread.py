"""Results that followers have not read yet: a shutdown waits for them, for a while."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from itertools import takewhile

LONGEST_WAIT_S = 600.0
"""The longest wait that `settle` may be asked for; what was told earlier is forgotten."""


class Unread:
    """What callers who follow jobs are still to be sent. One event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._followers: Counter[str] = Counter()
        """Open streams by the job that they follow."""
        self._told: dict[str, tuple[float, int]] = {}
        """By blob, oldest first: when followers were told of it, and how many of them have not read it."""
        self._reads = 0
        """Reads on their way."""
        self._changed = asyncio.Event()
        """Set with the next change, and replaced then."""

    @contextmanager
    def following(self, job_id: str) -> Generator[None]:
        """A stream follows a job until the block ends."""
        self._followers[job_id] += 1
        try:
            yield
        finally:
            self._followers[job_id] -= 1
            if not self._followers[job_id]:
                del self._followers[job_id]
            self._note()

    def told(self, blob_id: str) -> None:
        """A follower hears of a blob that it may want to read."""
        now = self._clock()
        _, unread = self._told.pop(blob_id, (0.0, 0))
        self._told[blob_id] = now, unread + 1
        for old in list(takewhile(lambda one: self._told[one][0] < now - LONGEST_WAIT_S, self._told)):
            del self._told[old]

    @contextmanager
    def reading(self) -> Generator[None]:
        """A caller reads a blob until the block ends."""
        self._reads += 1
        try:
            yield
        finally:
            self._reads -= 1
            self._note()

    def read(self, blob_id: str) -> None:
        """A caller has read a blob to its end."""
        told_s, unread = self._told.pop(blob_id, (0.0, 0))
        if unread > 1:
            # Its place among the others may be wrong now, by which it is only kept longer.
            self._told[blob_id] = told_s, unread - 1
        self._note()

    async def settle(self, has_ended: Callable[[str], bool], limit_s: float) -> None:
        """Wait until followers of ended jobs have their last event, and until reads are done and blobs are read of which
        followers were told in the last `limit_s`. At most `limit_s`."""
        begin_s = self._clock()
        while (rest_s := self._rest_s(begin_s, has_ended, limit_s)) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), rest_s)

    def _rest_s(self, begin_s: float, has_ended: Callable[[str], bool], limit_s: float) -> float:
        """How long to wait for what is open now."""
        since = [told_s for told_s, _ in self._told.values()]
        if self._reads or any(has_ended(job_id) for job_id in self._followers):
            since.append(begin_s)
        return min(max(since), begin_s) + limit_s - self._clock() if since else 0.0

    def _note(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
