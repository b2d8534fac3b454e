"""A memory pool: memory of one kind in one place, as measured and as the books have it."""

from enum import StrEnum
from typing import Protocol

import msgspec

from domains.errors import ErrorReason, ResourceExhausted
from domains.memory.measure import MemoryMeasure
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.pressure import Pressure

HOST = "host"
DISK = "disk"


class PoolKind(StrEnum):
    """What a pool is made of."""

    DEVICE = "device"
    HOST = "host"
    DISK = "disk"


class PoolSource(Protocol):
    """Where a pool's figures come from."""

    @property
    def pool_id(self) -> str:
        """`host`, `disk`, or the id of the device whose memory it is."""
        ...

    @property
    def kind(self) -> PoolKind: ...

    @property
    def device_id(self) -> str:
        """Empty for HOST and DISK."""
        ...

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names that requests may use."""
        ...

    async def measure(self) -> MemoryMeasure:
        """The pool now. What cannot be measured is absent."""
        ...


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What new work could have if nothing were promised. Negative: more is in use than may be."""

    pool_bytes: int | None
    """That the pool has, less headroom. Memory that caches keep counts as free: they give it back. None: unmeasured."""
    budget_bytes: int | None
    """That the limit allows. None: no limit."""
    ceiling_bytes: int | None = None
    """The most that it could ever have, were the pool empty. None: that is not known."""

    @property
    def free_bytes(self) -> int | None:
        """The smaller of the two. None: neither is known."""
        return min((each for each in (self.pool_bytes, self.budget_bytes) if each is not None), default=None)


def room_of(measure: MemoryMeasure, budget: MemoryBudget) -> Room:
    """What is left of a pool and of its budget."""
    held, cached = measure.held_bytes or 0, measure.cached_bytes or 0
    used = measure.used_bytes if measure.used_bytes is not None else held
    pool = None if measure.total_bytes is None else measure.total_bytes - budget.headroom_bytes - used + cached
    limit = None if budget.limit_bytes is None else budget.limit_bytes - held + cached
    return Room(pool_bytes=pool, budget_bytes=limit, ceiling_bytes=budget.ceiling_bytes(measure.total_bytes))


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as it is now."""

    id: str
    kind: PoolKind
    device_id: str
    measure: MemoryMeasure
    reserved_bytes: int
    """Promised and not in use yet. From the books."""
    available_bytes: int | None
    """What new work can have, from 0. None: it cannot be measured."""
    peak_live_bytes: int | None
    """The highest since the server started."""
    pressure: Pressure | None
    """None: the use cannot be measured."""
    time_to_critical_s: float | None
    budget: MemoryBudget
    etag: str
    """Changes with the budget only."""


_FULL = {
    PoolKind.DEVICE: ErrorReason.DEVICE_OUT_OF_MEMORY,
    PoolKind.HOST: ErrorReason.HOST_OUT_OF_MEMORY,
    PoolKind.DISK: ErrorReason.STORAGE_FULL,
}
RETRY_AFTER_S = 5.0
"""When to ask again, where nothing is known to end sooner."""


def no_room(
    source: PoolSource, room: Room, promised_bytes: int, need_bytes: int, retry_after_s: float | None = None
) -> ResourceExhausted:
    """The refusal: BUDGET_EXCEEDED when only the budget lacks room, else by the kind of the pool. What could never fit is
    told without a time to try again."""
    pool_lacks = room.pool_bytes is None or room.pool_bytes - promised_bytes < need_bytes
    over_budget = room.budget_bytes is not None and room.budget_bytes - promised_bytes < need_bytes
    reason = ErrorReason.BUDGET_EXCEEDED if over_budget and not pool_lacks else _FULL[source.kind]
    free = max(0, (room.free_bytes or 0) - promised_bytes)
    what = "the budget of memory pool" if reason is ErrorReason.BUDGET_EXCEEDED else "memory pool"
    remedy = "raise it with SetMemoryBudget, or ask for less" if what != "memory pool" else "free some or ask for less"
    never = room.ceiling_bytes is not None and need_bytes > room.ceiling_bytes
    ceiling = {} if room.ceiling_bytes is None else {"ceiling_bytes": room.ceiling_bytes}
    text = f"{what} {source.pool_id} has {free} bytes left, {need_bytes} are needed; {remedy}"
    if never:
        text = (
            f"{need_bytes} bytes can never fit into memory pool {source.pool_id} of {room.ceiling_bytes}; ask for less"
        )
    return ResourceExhausted(
        text,
        reason,
        retry_after_s=None if never else RETRY_AFTER_S if retry_after_s is None else retry_after_s,
        memory_pool_id=source.pool_id,
        needed_bytes=need_bytes,
        available_bytes=free,
        **ceiling,
    )
