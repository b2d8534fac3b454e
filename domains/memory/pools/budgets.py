"""Setting a budget while memory is in use: what it asks of others, told beforehand, then done."""

from collections.abc import Callable, Sequence

import msgspec

from domains.errors import Aborted, ErrorReason, ResourceExhausted
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.ledger import Ledger
from domains.memory.pools.pool import PoolView
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaiming import Reclaiming
from domains.memory.pools.reservation import Reservation
from domains.memory.pools.state import PoolState, Upkeep


class BudgetImpact(msgspec.Struct, frozen=True, kw_only=True):
    """What a budget asks of those who use the pool now."""

    excess_bytes: int = 0
    """By how much use and promises are above the new limit; emptied caches do not count. 0: it fits."""
    evicted_ids: tuple[str, ...] = ()
    """Loaded models that are unloaded for it, in this order."""
    preempted_ids: tuple[str, ...] = ()
    """Reservations that end for it, the lowest priority first."""
    stranded_ids: tuple[str, ...] = ()
    """Waiting jobs that can no longer run in this pool."""
    reclaimable_bytes: int = 0
    """What the evictions and ended reservations give back."""


class BudgetChange(msgspec.Struct, frozen=True, kw_only=True):
    """A budget that was set, or looked at."""

    view: PoolView
    """After the change; as it is, if nothing was changed."""
    impact: BudgetImpact


class Budgets:
    """The budgets of all pools. One event loop."""

    def __init__(self, pools: Pools, ledger: Ledger, reclaiming: Reclaiming) -> None:
        self._pools = pools
        self._ledger = ledger
        self._reclaiming = reclaiming
        self.stranded: Callable[[str, int], Sequence[str]] | None = None
        """Ids of the waiting jobs that cannot run in a pool (id) whose ceiling (bytes) is this."""

    async def set(
        self, name: str, budget: MemoryBudget | None, *, etag: str = "", validate_only: bool = False
    ) -> BudgetChange:
        """Let a budget hold (None: the configured one), after making it fit; with `validate_only`, only tell.

        ETAG_MISMATCH: somebody was faster. BUDGET_EXCEEDED: what must stay is more; then nothing has changed.
        """
        state = self._pools.get(name)
        if validate_only:
            self._check_etag(state, etag)
            return await self._look(state, budget or state.configured)
        async with state.changing:
            self._check_etag(state, etag)
            with state.upkept(Upkeep.BUDGET):
                return await self._apply(state, budget or state.configured)

    async def _look(self, state: PoolState, budget: MemoryBudget) -> BudgetChange:
        view = await self._pools.view(state.source.pool_id)
        return BudgetChange(view=view, impact=self._impact(state, budget, view))

    async def _apply(self, state: PoolState, budget: MemoryBudget) -> BudgetChange:
        pool_id = state.source.pool_id
        if budget == state.budget:
            return BudgetChange(view=await self._pools.view(pool_id), impact=BudgetImpact())
        impact = (await self._look(state, budget)).impact
        if impact.reclaimable_bytes < impact.excess_bytes:
            raise self._refusal(pool_id, budget, impact)
        before = state.budget
        # First, so that nobody takes what is being freed for it.
        self._pools.set_budget(pool_id, budget)
        try:
            await self._give_way(state, impact)
        except BaseException:
            self._pools.set_budget(pool_id, before)
            raise
        return BudgetChange(view=await self._pools.view(pool_id), impact=impact)

    async def _give_way(self, state: PoolState, impact: BudgetImpact) -> None:
        pool_id = state.source.pool_id
        held = state.measure.held_bytes if state.measure else None
        limit = state.budget.limit_bytes
        if impact.evicted_ids or (limit is not None and held is not None and held > limit):
            await self._reclaiming.unload(pool_id, impact.evicted_ids)
        # Last, since it cannot fail: a model that could not be unloaded costs nobody's reservation.
        for reservation_id in impact.preempted_ids:
            self._ledger.preempt(reservation_id)

    def _impact(self, state: PoolState, budget: MemoryBudget, view: PoolView) -> BudgetImpact:
        room = state.room_under(budget)
        over_limit = 0 if room.budget_bytes is None else max(0, view.reserved_bytes - room.budget_bytes)
        victims = self._reclaiming.victims(view.id, over_limit, budget.idle_after_s)
        evicted_bytes = sum(size for _, size in victims)
        preempted = self._preempted(view, max(over_limit, _less_room(state, budget, view)) - evicted_bytes)
        ceiling = budget.ceiling_bytes(view.measure.total_bytes)
        return BudgetImpact(
            excess_bytes=over_limit,
            evicted_ids=tuple(loaded_id for loaded_id, _ in victims),
            preempted_ids=tuple(reservation.id for reservation in preempted),
            stranded_ids=tuple(self.stranded(view.id, ceiling)) if self.stranded and ceiling is not None else (),
            reclaimable_bytes=evicted_bytes + sum(reservation.size_bytes for reservation in preempted),
        )

    def _preempted(self, view: PoolView, lacking: int) -> list[Reservation]:
        preempted: list[Reservation] = []
        for reservation in self._ledger.held(view.id):
            if lacking <= 0:
                break
            preempted.append(reservation)
            lacking -= reservation.size_bytes
        return preempted

    @staticmethod
    def _check_etag(state: PoolState, etag: str) -> None:
        if etag and etag != state.etag:
            pool_id = state.source.pool_id
            message = f"the budget of memory pool {pool_id} has changed since; read the pool again and retry"
            raise Aborted(message, ErrorReason.ETAG_MISMATCH, memory_pool_id=pool_id, etag=state.etag)

    @staticmethod
    def _refusal(pool_id: str, budget: MemoryBudget, impact: BudgetImpact) -> ResourceExhausted:
        stays = impact.excess_bytes - impact.reclaimable_bytes
        return ResourceExhausted(
            f"what must stay in memory pool {pool_id} is {stays} bytes more than the limit of {budget.limit_bytes}; "
            "allow more, or end jobs and unload models first",
            ErrorReason.BUDGET_EXCEEDED,
            memory_pool_id=pool_id,
            limit_bytes=budget.limit_bytes,
            excess_bytes=impact.excess_bytes,
            reclaimable_bytes=impact.reclaimable_bytes,
        )


def _less_room(state: PoolState, budget: MemoryBudget, view: PoolView) -> int:
    """Promised bytes that a larger headroom takes the ground from. It takes none from those who use memory already."""
    rooms = [state.room_under(each).pool_bytes for each in (state.budget, budget)]
    before, after = (0 if room is None else max(0, view.reserved_bytes - room) for room in rooms)
    return max(0, after - before)
