"""Recommendations for a pool, from its measurements."""

from collections.abc import Iterator, Sequence

import msgspec

from domains.amounts import bytes_told
from domains.memory.measure import MemoryOwner, OwnerKind
from domains.memory.pools.history import HistoryView
from domains.memory.pools.leaks import LeakSuspect
from domains.memory.pools.pool import PoolView
from domains.memory.pools.pressure import Pressure

MUCH = 0.1
"""Share of the pool from which a recommendation is given."""
IN_PIECES = 0.5
"""Fragmentation ratio from which compacting is recommended."""
SOON_S = 600.0


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """An action that would help."""

    action: str
    """The action, with the call that performs it."""
    reason: str
    """The measurement on which the action is based."""
    expected_freed_bytes: int | None = None
    """None: unknown beforehand."""


def advice(view: PoolView, history: HistoryView, suspects: Sequence[LeakSuspect]) -> list[Recommendation]:
    """The recommendations, largest gain first. Empty: nothing needs to change."""
    found = [*_leaking(suspects), *_scarce(view), *_in_pieces(view), *_failing(view, history)]
    return sorted(found, key=lambda each: -(each.expected_freed_bytes or 0))


def _leaking(suspects: Sequence[LeakSuspect]) -> Iterator[Recommendation]:
    for suspect in suspects:
        growth = (
            f"grew by {bytes_told(suspect.growth_bytes_per_s)}/s for {suspect.growing_s:.0f} s while its work did not"
        )
        yield Recommendation(
            action=_against(suspect.owner),
            reason=f"{_name(suspect.owner)} {growth}",
            expected_freed_bytes=suspect.owner.live_bytes if suspect.owner.reclaimable else None,
        )


def _against(owner: MemoryOwner) -> str:
    match owner.kind:
        case OwnerKind.LOADED_MODEL:
            return f"Unload {owner.id} with UnloadModel and load it again."
        case OwnerKind.JOB:
            return f"Look at job {owner.id}; CancelJob ends it."
        case OwnerKind.BLOB:
            return f"Delete {owner.id} with DeleteBlob if it is not needed."
        case OwnerKind.CACHE:
            return "Empty the caches with ReclaimMemory, level CACHES."
        case _:
            return "Restart the worker with ResetDevice when its jobs are done."


def _name(owner: MemoryOwner) -> str:
    return f"{owner.kind.value} {owner.id}".strip()


def _scarce(view: PoolView) -> Iterator[Recommendation]:
    """Recommendations while memory is scarce or will be within `SOON_S`."""
    soon = view.time_to_critical_s is not None and view.time_to_critical_s <= SOON_S
    if not soon and (view.pressure is None or view.pressure < Pressure.WARNING):
        return
    total = view.measure.total_bytes or 0
    cached = view.measure.cached_bytes or 0
    idle = sum(owner.live_bytes for owner in view.measure.owners if owner.reclaimable)
    if cached > MUCH * total:
        yield Recommendation(
            action="Empty the caches with ReclaimMemory, level CACHES.",
            reason=f"{bytes_told(cached)} of {bytes_told(total)} are kept by caches while room is short",
            expected_freed_bytes=cached,
        )
    if idle:
        yield Recommendation(
            action="Unload idle models with ReclaimMemory, level IDLE.",
            reason=f"idle models hold {bytes_told(idle)} while room is short",
            expected_freed_bytes=idle,
        )
    if view.reserved_bytes > MUCH * total:
        yield Recommendation(
            action="Give back what is not needed with DeleteReservation.",
            reason=f"{bytes_told(view.reserved_bytes)} of {bytes_told(total)} are reserved and not in use",
        )


def _in_pieces(view: PoolView) -> Iterator[Recommendation]:
    ratio = view.measure.fragmentation_ratio
    if (
        ratio is not None
        and ratio >= IN_PIECES
        and (view.measure.cached_bytes or 0) > MUCH * (view.measure.total_bytes or 0)
    ):
        yield Recommendation(
            action="Move memory together with ReclaimMemory, level COMPACT.",
            reason=f"{ratio:.0%} of the allocator's free memory lies outside its largest free block",
        )


def _failing(view: PoolView, history: HistoryView) -> Iterator[Recommendation]:
    if history.allocation_failure_count:
        yield Recommendation(
            action="Ask for less at once, or leave more room: fewer models loaded, smaller pictures or batches.",
            reason=f"{history.allocation_failure_count} allocations failed in pool {view.id} in this time",
        )
