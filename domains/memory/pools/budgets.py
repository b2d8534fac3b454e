"""Sets a budget while memory is in use: reports the impact first, then applies it."""

from collections.abc import Callable, Sequence

import msgspec

from domains.amounts import bytes_told
from domains.errors import Aborted, ErrorReason, ResourceExhausted
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.pool import PoolView
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaiming import Reclaiming
from domains.memory.pools.reservation import Reservation
from domains.memory.pools.reservations import Reservations
from domains.memory.pools.state import PoolState, Upkeep


class BudgetImpact(msgspec.Struct, frozen=True, kw_only=True):
    """The effect of a budget on the present users of a pool."""

    excess_bytes: int = 0
    """Bytes by which use and claims exceed the new limit, cached memory excluded. 0: the budget fits."""
    evicted_ids: tuple[str, ...] = ()
    """Loaded models that are unloaded for the budget, in this order."""
    preempted_ids: tuple[str, ...] = ()
    """Reservations that end for the budget, lowest priority first."""
    stranded_ids: tuple[str, ...] = ()
    """Waiting jobs that can no longer run in this pool."""
    reclaimable_bytes: int = 0
    """Bytes that the evictions and the ended reservations give back."""


class BudgetChange(msgspec.Struct, frozen=True, kw_only=True):
    """A budget that was set or validated."""

    view: PoolView
    """The pool after the change; for a validation, the pool as it is."""
    impact: BudgetImpact


class Budgets:
    """The budgets of all pools. One event loop."""

    def __init__(
        self,
        pools: Pools,
        reservations: Reservations,
        reclaiming: Reclaiming,
        stranded: Callable[[str, int], Sequence[str]],
    ) -> None:
        """`stranded`: ids of the waiting jobs that cannot run in a pool (id) with this ceiling (bytes)."""
        self._pools = pools
        self._reservations = reservations
        self._reclaiming = reclaiming
        self._stranded = stranded

    async def set(
        self, name: str, budget: MemoryBudget | None, *, etag: str = "", validate_only: bool = False
    ) -> BudgetChange:
        """Free what a budget requires and set it (None: the configured one); with `validate_only`, only report the impact.

        ETAG_MISMATCH: another caller changed the budget. BUDGET_EXCEEDED: more must stay than the limit allows; then
        nothing has changed.
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
        # Set first, so that no other caller takes the bytes that are being freed.
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
        # Reservations end last: if a model cannot be unloaded, every reservation stays.
        for reservation_id in impact.preempted_ids:
            self._reservations.preempt(reservation_id)

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
            stranded_ids=() if ceiling is None else tuple(self._stranded(view.id, ceiling)),
            reclaimable_bytes=evicted_bytes + sum(reservation.size_bytes for reservation in preempted),
        )

    def _preempted(self, view: PoolView, lacking: int) -> list[Reservation]:
        preempted: list[Reservation] = []
        for reservation in self._reservations.held(view.id):
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
        limit = "" if budget.limit_bytes is None else f" of {bytes_told(budget.limit_bytes)}"
        return ResourceExhausted(
            f"what must stay in memory pool {pool_id} is {bytes_told(stays)} more than the limit{limit}; "
            "allow more, or end jobs and unload models first",
            ErrorReason.BUDGET_EXCEEDED,
            memory_pool_id=pool_id,
            limit_bytes=budget.limit_bytes,
            excess_bytes=impact.excess_bytes,
            reclaimable_bytes=impact.reclaimable_bytes,
        )


def _less_room(state: PoolState, budget: MemoryBudget, view: PoolView) -> int:
    """Claimed bytes for which a larger headroom leaves no room. Memory in use does not count."""
    rooms = [state.room_under(each).pool_bytes for each in (state.budget, budget)]
    # A pool that cannot be measured has neither room.
    lacking = [max(0, view.reserved_bytes - room) for room in rooms if room is not None]
    return max(0, lacking[-1] - lacking[0]) if lacking else 0
