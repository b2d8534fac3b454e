"""The books: bytes that are promised and not in use yet.

A promise is either *kept free* (a reservation) or *claimed* by a consumer that is about to allocate. Of a claim only that
part counts which the measured owner does not hold yet, so that no byte counts twice. A claim that is settled counts until
a measurement that began afterwards is there: only that one sees what was allocated.
"""

from collections.abc import Callable, Sequence

from domains.memory.measure import MemoryOwner


class Promise:
    """Some bytes of one pool."""

    __slots__ = ("base_bytes", "claimed", "consumer_id", "name", "pool_id", "settled", "size_bytes")

    def __init__(self, name: str, pool_id: str, size_bytes: int) -> None:
        self.name = name
        self.pool_id = pool_id
        self.size_bytes = size_bytes
        self.claimed = False
        self.consumer_id = ""
        """Who allocates it, where that is an owner. Empty: nobody yet, or nobody by name."""
        self.base_bytes = 0
        """What the consumer held before it claimed."""
        self.settled = False


class _PoolBooks:
    """Of one pool."""

    __slots__ = ("claims", "kept", "kept_bytes", "live")

    def __init__(self) -> None:
        self.kept: dict[str, Promise] = {}
        self.kept_bytes = 0
        """Their sum: there may be thousands."""
        self.claims: dict[str, Promise] = {}
        self.live: dict[str, int] = {}
        """What each owner held when last measured."""


class Books:
    """Every promise, by pool."""

    def __init__(self) -> None:
        self._pools: dict[str, _PoolBooks] = {}
        self._splits = 0
        self.on_freed: list[Callable[[str], None]] = []
        """Called with a pool's id whenever less is promised there."""

    def promise(self, name: str, pool_id: str, size_bytes: int) -> Promise:
        """Keep bytes free. The caller has looked that they are there."""
        promise = Promise(name, pool_id, size_bytes)
        books = self._of(pool_id)
        books.kept[name] = promise
        books.kept_bytes += size_bytes
        return promise

    def resize(self, promise: Promise, size_bytes: int) -> None:
        """Promise more or less."""
        more, promise.size_bytes = size_bytes - promise.size_bytes, size_bytes
        books = self._of(promise.pool_id)
        if promise.name in books.kept:
            books.kept_bytes += more
        if more < 0:
            self._freed(promise.pool_id)

    def claim(self, promise: Promise, consumer_id: str) -> None:
        """The consumer begins to allocate it."""
        books = self._of(promise.pool_id)
        if books.kept.pop(promise.name, None):
            books.kept_bytes -= promise.size_bytes
            books.claims[promise.name] = promise
        promise.claimed, promise.consumer_id = True, consumer_id
        promise.base_bytes = books.live.get(consumer_id, 0)

    def split(self, promise: Promise, size_bytes: int, consumer_id: str) -> Promise:
        """So many bytes of a claim become a claim of another consumer's."""
        self._splits += 1
        part = Promise(f"{promise.name}/{self._splits}", promise.pool_id, size_bytes)
        promise.size_bytes -= size_bytes
        books = self._of(promise.pool_id)
        books.claims[part.name] = part
        part.claimed, part.consumer_id = True, consumer_id
        part.base_bytes = books.live.get(consumer_id, 0)
        return part

    def settle(self, promise: Promise) -> None:
        """It is allocated, or will not be: from the next measurement on that begins, the measured use tells."""
        promise.settled = True

    def drop(self, promise: Promise) -> None:
        """The bytes are free at once: nothing of them was allocated."""
        books = self._of(promise.pool_id)
        if books.kept.pop(promise.name, None):
            books.kept_bytes -= promise.size_bytes
            self._freed(promise.pool_id)

    def settling(self, pool_id: str) -> Sequence[Promise]:
        """Those that a measurement which begins now will have seen."""
        return [promise for promise in self._of(pool_id).claims.values() if promise.settled]

    def measured(self, pool_id: str, owners: Sequence[MemoryOwner], seen: Sequence[Promise]) -> None:
        """A measurement came in, with what was settled when it began."""
        books = self._of(pool_id)
        books.live = {owner.id: owner.live_bytes for owner in owners if owner.id}
        for promise in seen:
            books.claims.pop(promise.name, None)

    def forget(self, pool_id: str) -> None:
        """The pool is gone, and everything in it."""
        self._pools.pop(pool_id, None)

    def promised_bytes(self, pool_id: str) -> int:
        """What counts now."""
        books = self._of(pool_id)
        return books.kept_bytes + sum(_outstanding(promise, books.live) for promise in books.claims.values())

    def _of(self, pool_id: str) -> _PoolBooks:
        return self._pools.setdefault(pool_id, _PoolBooks())

    def _freed(self, pool_id: str) -> None:
        for tell in self.on_freed:
            tell(pool_id)


class Claim:
    """Bytes that somebody is about to allocate. Close it when they are allocated, or will not be; `with` does."""

    def __init__(self, books: Books, promise: Promise) -> None:
        self._books = books
        self._promise = promise

    def close(self) -> None:
        """From the next measurement on the measured use tells. Closing it again changes nothing."""
        self._books.settle(self._promise)

    def split(self, size_bytes: int, consumer_id: str) -> "Claim":
        """Of its bytes, so many (at most) are another consumer's from now on: a claim of their own."""
        size = min(size_bytes, self._promise.size_bytes)
        return Claim(self._books, self._books.split(self._promise, size, consumer_id))

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _outstanding(promise: Promise, live: dict[str, int]) -> int:
    if not promise.consumer_id:
        return promise.size_bytes
    taken = live.get(promise.consumer_id, 0) - promise.base_bytes
    return max(0, promise.size_bytes - max(0, taken))
