"""Journal: what happened, in order; a reader is only a position.

An entry is either *kept* (for good, and also on disk by whoever owns the journal) or *newest-only*: it takes the place
of the former entry in its slot, so a slow reader skips instead of making anyone buffer. Sequences rise, with gaps.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Entry(Generic[Value]):
    """One thing that happened."""

    __slots__ = ("rendered", "sequence", "time_s", "value")

    def __init__(self, sequence: int, time_s: float, value: Value) -> None:
        self.sequence = sequence
        """Rises within the journal, from 1."""
        self.time_s = time_s
        """Unix time."""
        self.value = value
        self.rendered: object = None
        """A place for the edge to keep what it made of the value, so that it is serialised once however many watch."""


class Journal(Generic[Value]):
    """Entries in memory, and the wake-up of those who wait for more. One event loop; no thread may touch it."""

    def __init__(
        self,
        kept: Sequence[Entry[Value]] = (),
        *,
        last_sequence: int = 0,
        closed: bool = False,
        limit: int | None = None,
        forgotten: int | None = None,
    ) -> None:
        """`limit`: how many entries are kept, the newest; None: all. `forgotten` None: none before `kept`."""
        self._kept = deque(kept, maxlen=limit)
        self._newest: dict[str, Entry[Value]] = {}
        self._published = self._kept[-1].sequence if self._kept else 0
        """The highest sequence that there is an entry for; `last_sequence` may have been promised further."""
        self.last_sequence = max(last_sequence, self._published)
        self.closed = closed
        self.forgotten = forgotten if forgotten is not None else 0 if kept else self.last_sequence
        """The highest sequence whose entry is no longer kept; 0: all are."""
        self._waiting: set[asyncio.Future[None]] = set()

    def next(self, value: Value, *, now_s: float | None = None) -> Entry[Value]:
        """The entry that `publish` would add next; nobody sees it yet, so that it can be made durable first."""
        return Entry(self.last_sequence + 1, time.time() if now_s is None else now_s, value)

    def publish(self, entry: Entry[Value], *, slot: str = "") -> None:
        """Show an entry to everyone; with a `slot` it replaces the slot's former one."""
        self.last_sequence = self._published = entry.sequence
        if slot:
            self._newest[slot] = entry
        else:
            if len(self._kept) == self._kept.maxlen:
                self.forgotten = self._kept[0].sequence
            self._kept.append(entry)
        self._wake()

    def forget(self, sequence: int) -> None:
        """Entries up to `sequence` are no longer kept."""
        while self._kept and self._kept[0].sequence <= sequence:
            self._kept.popleft()
        self.forgotten = max(self.forgotten, sequence)

    def __contains__(self, sequence: int) -> bool:
        """Whether an entry with this sequence is kept; newest-only ones do not count."""
        older = next((entry for entry in reversed(self._kept) if entry.sequence <= sequence), None)
        return older is not None and older.sequence == sequence

    def close(self) -> None:
        """Nothing more will come; newest-only entries have had their time."""
        self.closed = True
        self._newest.clear()
        self._wake()

    def after(self, sequence: int) -> list[Entry[Value]]:
        """What a reader at `sequence` has not seen, in order."""
        if sequence >= self.last_sequence:
            return []
        unseen = list(takewhile(lambda entry: entry.sequence > sequence, reversed(self._kept)))[::-1]
        newer = [entry for entry in self._newest.values() if entry.sequence > sequence]
        return sorted(unseen + newer, key=lambda entry: entry.sequence) if newer else unseen

    async def more(self, sequence: int, timeout_s: float) -> bool:
        """Wait for something after `sequence`, or for the journal's end. False: neither came within `timeout_s`."""
        if self._published > sequence or self.closed:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes together with the news.
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiter)
        return True

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
