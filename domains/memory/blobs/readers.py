"""Who has a blob open now: readers, and at most one writer. In memory: it ends with the process."""

import time
from collections import Counter


class OpenBlobs:
    """Counts of open uses and the time of the last."""

    def __init__(self) -> None:
        self._readers: Counter[str] = Counter()
        self._writers: set[str] = set()
        self._access_s: dict[str, float] = {}

    def enter(self, name: str) -> None:
        """Somebody reads."""
        self._readers[name] += 1
        self.touch(name)

    def leave(self, name: str) -> None:
        """And has read."""
        self.touch(name)
        self._readers[name] -= 1
        if not self._readers[name]:
            del self._readers[name]

    def take_writer(self, name: str) -> bool:
        """Become the only writer. False: there is one."""
        if name in self._writers:
            return False
        self._writers.add(name)
        return True

    def give_writer(self, name: str) -> None:
        """Write no more."""
        self.touch(name)
        self._writers.discard(name)

    def readers(self, name: str) -> int:
        """How many read it."""
        return self._readers[name]

    def is_open(self, name: str) -> bool:
        """Whether anybody reads or writes it."""
        return name in self._readers or name in self._writers

    def touch(self, name: str) -> None:
        """It was used now."""
        self._access_s[name] = time.time()

    def access_s(self, name: str) -> float | None:
        """When it was last used (Unix time). None: not since the start."""
        return self._access_s.get(name)

    def forget(self, name: str) -> None:
        """The blob is gone."""
        self._access_s.pop(name, None)
