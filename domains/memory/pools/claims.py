"""Claims: bytes of a pool that are set aside and that no measurement shows yet.

A claim is *kept* free for a reservation, or *taken* by a consumer that is about to allocate. Of a taken claim only those
bytes count that the measured consumer does not hold yet, so no byte counts twice. A closed claim counts until a
measurement arrives that began after the close: only that measurement includes the allocated bytes.
"""

from collections.abc import Callable, Sequence

from domains.memory.measure import MemoryOwner


class Claim:
    """Bytes of one pool. The consumer closes the claim when the bytes are allocated, or will not be; `with` does."""

    __slots__ = ("_claims", "base_bytes", "closed", "consumer_id", "pool_id", "size_bytes")

    def __init__(self, claims: "Claims", pool_id: str, size_bytes: int) -> None:
        self._claims = claims
        self.pool_id = pool_id
        self.size_bytes = size_bytes
        self.consumer_id = ""
        """The job, loaded model or blob that allocates the bytes. Empty: none yet, or a consumer without an id."""
        self.base_bytes = 0
        """Bytes that the consumer held before it took the claim."""
        self.closed = False

    def close(self) -> None:
        """Count the measured use instead of the claim from the next measurement on. A second call changes nothing."""
        self.closed = True

    def split(self, size_bytes: int, consumer_id: str) -> "Claim":
        """Move at most `size_bytes` of this claim into a new claim of another consumer."""
        size = min(size_bytes, self.size_bytes)
        self.size_bytes -= size
        return self._claims.take(Claim(self._claims, self.pool_id, size), consumer_id)

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _PoolClaims:
    """The claims of one pool."""

    __slots__ = ("kept", "kept_bytes", "live", "taken")

    def __init__(self) -> None:
        self.kept: set[Claim] = set()
        self.kept_bytes = 0
        """The sum of `kept`, maintained because there may be thousands."""
        self.taken: set[Claim] = set()
        self.live: dict[str, int] = {}
        """Live bytes by owner, as last measured."""


class Claims:
    """The claims of all pools."""

    def __init__(self) -> None:
        self._pools: dict[str, _PoolClaims] = {}
        self.on_freed: list[Callable[[str], None]] = []
        """Listeners: id of a pool in which less is claimed than before."""

    def keep(self, pool_id: str, size_bytes: int) -> Claim:
        """Keep bytes free. The caller has checked that the pool has them."""
        claim = Claim(self, pool_id, size_bytes)
        pool = self._of(pool_id)
        pool.kept.add(claim)
        pool.kept_bytes += size_bytes
        return claim

    def resize(self, claim: Claim, size_bytes: int) -> None:
        """Claim more or fewer bytes."""
        more, claim.size_bytes = size_bytes - claim.size_bytes, size_bytes
        pool = self._of(claim.pool_id)
        if claim in pool.kept:
            pool.kept_bytes += more
        if more < 0:
            self._freed(claim.pool_id)

    def take(self, claim: Claim, consumer_id: str) -> Claim:
        """Give the bytes to the consumer, who begins to allocate them."""
        pool = self._of(claim.pool_id)
        if claim in pool.kept:
            pool.kept.remove(claim)
            pool.kept_bytes -= claim.size_bytes
        pool.taken.add(claim)
        claim.consumer_id, claim.base_bytes = consumer_id, pool.live.get(consumer_id, 0)
        return claim

    def take_new(self, pool_id: str, size_bytes: int, consumer_id: str) -> Claim:
        """Claim bytes for a consumer that has no reservation. The caller has checked that the pool has them."""
        return self.take(Claim(self, pool_id, size_bytes), consumer_id)

    def drop(self, claim: Claim) -> None:
        """End a kept claim: its bytes are free at once, because none of them was allocated."""
        pool = self._of(claim.pool_id)
        if claim in pool.kept:
            pool.kept.remove(claim)
            pool.kept_bytes -= claim.size_bytes
            self._freed(claim.pool_id)

    def closed(self, pool_id: str) -> Sequence[Claim]:
        """The closed claims whose bytes a measurement that begins now includes."""
        return [claim for claim in self._of(pool_id).taken if claim.closed]

    def measured(self, pool_id: str, owners: Sequence[MemoryOwner], closed: Sequence[Claim]) -> None:
        """Note a measurement. `closed`: the claims that were closed when it began; they end."""
        pool = self._of(pool_id)
        pool.live = {owner.id: owner.live_bytes for owner in owners if owner.id}
        pool.taken.difference_update(closed)

    def outstanding_bytes(self, pool_id: str) -> int:
        """Bytes that are claimed and not in the measured use."""
        pool = self._of(pool_id)
        return pool.kept_bytes + sum(_outstanding(claim, pool.live) for claim in pool.taken)

    def _of(self, pool_id: str) -> _PoolClaims:
        return self._pools.setdefault(pool_id, _PoolClaims())

    def _freed(self, pool_id: str) -> None:
        for tell in self.on_freed:
            tell(pool_id)


def _outstanding(claim: Claim, live: dict[str, int]) -> int:
    if not claim.consumer_id:
        return claim.size_bytes
    allocated = live.get(claim.consumer_id, 0) - claim.base_bytes
    return max(0, claim.size_bytes - max(0, allocated))
