"""Journal: events in order; a reader is only a position.

An entry is either *kept* (permanently, and also on disk by the journal's owner) or *newest-only*: it replaces the
former entry in its slot, so a slow reader skips entries and needs no buffer. Sequences rise, with gaps.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Entry(Generic[Value]):
    """One event, with its sequence and time."""

    __slots__ = ("rendered", "sequence", "time_s", "value")

    def __init__(self, sequence: int, time_s: float, value: Value) -> None:
        self.sequence = sequence
        """Rises within the journal, from 1."""
        self.time_s = time_s
        """Unix time."""
        self.value = value
        self.rendered: object = None
        """Cache for the transport's serialised form of the value: it is serialised once for all watchers."""


class Journal(Generic[Value]):
    """Entries in memory, which wake waiting readers. One event loop; no thread may touch it."""

    def __init__(
        self,
        kept: Sequence[Entry[Value]] = (),
        *,
        last_sequence: int = 0,
        closed: bool = False,
        limit: int | None = None,
        forgotten: int | None = None,
    ) -> None:
        """`limit`: number of newest entries to keep; None: all. `forgotten` None: none before `kept` was dropped."""
        self._kept = deque(kept, maxlen=limit)
        self._newest: dict[str, Entry[Value]] = {}
        self._published = self._kept[-1].sequence if self._kept else 0
        """The highest sequence of an entry; `last_sequence` can be higher if more were reserved."""
        self.last_sequence = max(last_sequence, self._published)
        self.closed = closed
        self.forgotten = forgotten if forgotten is not None else 0 if kept else self.last_sequence
        """The highest sequence whose entry was dropped; 0: all are kept."""
        self._waiting: set[asyncio.Future[None]] = set()

    def next(self, value: Value, *, now_s: float | None = None) -> Entry[Value]:
        """The entry that `publish` would add next. Readers do not see it yet, so it can be made durable first."""
        return Entry(self.last_sequence + 1, time.time() if now_s is None else now_s, value)

    def publish(self, entry: Entry[Value], *, slot: str = "") -> None:
        """Show an entry to all readers; with a `slot` it replaces the slot's former entry."""
        self.last_sequence = self._published = entry.sequence
        if slot:
            self._newest[slot] = entry
        else:
            if len(self._kept) == self._kept.maxlen:
                self.forgotten = self._kept[0].sequence
            self._kept.append(entry)
        self._wake()

    def forget(self, sequence: int) -> None:
        """Drop the entries up to `sequence`."""
        while self._kept and self._kept[0].sequence <= sequence:
            self._kept.popleft()
        self.forgotten = max(self.forgotten, sequence)

    def discard(self, unwanted: Callable[[Value], bool]) -> None:
        """Drop the entries whose values are unwanted; readers keep their positions."""
        self._kept = deque((entry for entry in self._kept if not unwanted(entry.value)), maxlen=self._kept.maxlen)
        self._newest = {slot: entry for slot, entry in self._newest.items() if not unwanted(entry.value)}

    def vacate(self, prefix: str) -> None:
        """Drop the newest-only entries of the slots whose names begin with a prefix."""
        for slot in [slot for slot in self._newest if slot.startswith(prefix)]:
            del self._newest[slot]

    def __contains__(self, sequence: int) -> bool:
        """Whether an entry with this sequence is kept; newest-only entries do not count."""
        older = next((entry for entry in reversed(self._kept) if entry.sequence <= sequence), None)
        return older is not None and older.sequence == sequence

    def close(self) -> None:
        """End the journal: no entry follows, and newest-only entries are dropped."""
        self.closed = True
        self._newest.clear()
        self._wake()

    def after(self, sequence: int) -> list[Entry[Value]]:
        """Entries that a reader at `sequence` has not seen, in order."""
        if sequence >= self.last_sequence:
            return []
        unseen = list(takewhile(lambda entry: entry.sequence > sequence, reversed(self._kept)))[::-1]
        newer = [entry for entry in self._newest.values() if entry.sequence > sequence]
        return sorted(unseen + newer, key=lambda entry: entry.sequence) if newer else unseen

    async def more(self, sequence: int, timeout_s: float) -> bool:
        """Wait for an entry after `sequence`, or for the journal's end. False: neither came within `timeout_s`."""
        if self._published > sequence or self.closed:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            # Not `wait_for`: on Python 3.11 it swallows a cancellation that coincides with a new entry.
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
