"""The values of a memory pool: a view of it, the room in it, and the error when it is full."""

from enum import StrEnum
from typing import Protocol

import msgspec

from domains.amounts import compared
from domains.errors import ErrorReason, ResourceExhausted
from domains.memory.measure import MemoryMeasure
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.pressure import Pressure

HOST = "host"
DISK = "disk"


class PoolKind(StrEnum):
    """The kind of memory of a pool."""

    DEVICE = "device"
    HOST = "host"
    DISK = "disk"


class PoolSource(Protocol):
    """The source of a pool's measurements."""

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
        """Other names of the pool in requests."""
        ...

    async def measure(self) -> MemoryMeasure:
        """Measure the pool now. Figures that cannot be measured are absent."""
        ...


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """The memory for new work if nothing were claimed. Negative: more is in use than the budget allows."""

    pool_bytes: int | None
    """Free in the pool, less the headroom. Cached memory counts as free, because caches give it back. None: unmeasured."""
    budget_bytes: int | None
    """Free under the limit. None: no limit."""
    ceiling_bytes: int | None = None
    """The most that an empty pool could give. None: unknown."""

    @property
    def free_bytes(self) -> int | None:
        """The smaller of the two. None: neither is known."""
        return min((each for each in (self.pool_bytes, self.budget_bytes) if each is not None), default=None)


def room_of(measure: MemoryMeasure, budget: MemoryBudget) -> Room:
    """The room that a measurement leaves under a budget."""
    held, cached = measure.held_bytes or 0, measure.cached_bytes or 0
    used = measure.used_bytes if measure.used_bytes is not None else held
    pool = None if measure.total_bytes is None else measure.total_bytes - budget.headroom_bytes - used + cached
    limit = None if budget.limit_bytes is None else budget.limit_bytes - held + cached
    return Room(pool_bytes=pool, budget_bytes=limit, ceiling_bytes=budget.ceiling_bytes(measure.total_bytes))


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """A pool at one moment."""

    id: str
    kind: PoolKind
    device_id: str
    measure: MemoryMeasure
    reserved_bytes: int
    """Claimed and not in the measured use."""
    available_bytes: int | None
    """The memory for new work, at least 0. None: it cannot be measured."""
    peak_live_bytes: int | None
    """The highest live bytes since the server started."""
    pressure: Pressure | None
    """None: the use cannot be measured."""
    time_to_critical_s: float | None
    budget: MemoryBudget
    etag: str
    """Changes with the budget."""


_FULL = {
    PoolKind.DEVICE: ErrorReason.DEVICE_OUT_OF_MEMORY,
    PoolKind.HOST: ErrorReason.HOST_OUT_OF_MEMORY,
    PoolKind.DISK: ErrorReason.STORAGE_FULL,
}
RETRY_AFTER_S = 5.0
"""The retry delay if no end of a reservation is known."""


def no_room(
    source: PoolSource, room: Room, outstanding_bytes: int, need_bytes: int, retry_after_s: float | None = None
) -> ResourceExhausted:
    """The refusal: BUDGET_EXCEEDED if only the budget lacks room, else the out-of-memory reason of the pool's kind.

    A need that exceeds the ceiling gets no retry delay.
    """
    pool_lacks = room.pool_bytes is None or room.pool_bytes - outstanding_bytes < need_bytes
    over_budget = room.budget_bytes is not None and room.budget_bytes - outstanding_bytes < need_bytes
    reason = ErrorReason.BUDGET_EXCEEDED if over_budget and not pool_lacks else _FULL[source.kind]
    free = max(0, (room.free_bytes or 0) - outstanding_bytes)
    what = "the budget of memory pool" if reason is ErrorReason.BUDGET_EXCEEDED else "memory pool"
    remedy = "raise it with SetMemoryBudget, or ask for less" if what != "memory pool" else "free some or ask for less"
    never = room.ceiling_bytes is not None and need_bytes > room.ceiling_bytes
    ceiling = {} if room.ceiling_bytes is None else {"ceiling_bytes": room.ceiling_bytes}
    left, need = compared(free, need_bytes)
    text = f"{what} {source.pool_id} has {left} left, {need} are needed; {remedy}"
    if room.ceiling_bytes is not None and never:
        need, all_of_it = compared(need_bytes, room.ceiling_bytes)
        text = f"{need} can never fit into memory pool {source.pool_id} of {all_of_it}; ask for less"
    return ResourceExhausted(
        text,
        reason,
        retry_after_s=None if never else RETRY_AFTER_S if retry_after_s is None else retry_after_s,
        memory_pool_id=source.pool_id,
        needed_bytes=need_bytes,
        available_bytes=free,
        **ceiling,
    )
