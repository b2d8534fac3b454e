"""The open readers of blobs, and at most one writer each. Kept in memory only."""

import time
from collections import Counter


class OpenBlobs:
    """Readers, writers and the time of the last use of each blob."""

    def __init__(self) -> None:
        self._readers: Counter[str] = Counter()
        self._writers: set[str] = set()
        self._access_s: dict[str, float] = {}

    def enter(self, name: str) -> None:
        """Count a reader."""
        self._readers[name] += 1
        self.touch(name)

    def leave(self, name: str) -> None:
        """Uncount a reader."""
        self.touch(name)
        self._readers[name] -= 1
        if not self._readers[name]:
            del self._readers[name]

    def take_writer(self, name: str) -> bool:
        """Become the only writer. False: the blob has a writer."""
        if name in self._writers:
            return False
        self._writers.add(name)
        return True

    def give_writer(self, name: str) -> None:
        """Stop being the writer."""
        self.touch(name)
        self._writers.discard(name)

    def readers(self, name: str) -> int:
        """The number of readers."""
        return self._readers[name]

    def is_open(self, name: str) -> bool:
        """Whether the blob has a reader or a writer."""
        return name in self._readers or name in self._writers

    def touch(self, name: str) -> None:
        """Note that the blob is used now."""
        self._access_s[name] = time.time()

    def access_s(self, name: str) -> float | None:
        """Unix time of the last use. None: not used since the server started."""
        return self._access_s.get(name)

    def forget(self, name: str) -> None:
        """Drop the time of a removed blob."""
        self._access_s.pop(name, None)
