"""The memory pools of this server: measured on request, sampled every second, each with a budget and its claims."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from domains.errors import DeviceOpsError, ErrorReason, NotFound, Unavailable
from domains.memory.measure import MemoryMeasure
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.claims import Claims
from domains.memory.pools.gauge import Gauge
from domains.memory.pools.leaks import WINDOW_S, OwnerKey
from domains.memory.pools.pool import PoolKind, PoolSource, PoolView, Room
from domains.memory.pools.pressure import PressureChange
from domains.memory.pools.pressure_log import PressureLog
from domains.memory.pools.state import PoolState

SAMPLE_S = 1.0
"""How often every pool is measured."""
_ORDER = (PoolKind.DEVICE, PoolKind.HOST, PoolKind.DISK)


def _no_work(pool_id: str) -> Mapping[OwnerKey, float]:
    return {}


class Pools:
    """All pools. One event loop."""

    def __init__(
        self,
        configured: Callable[[PoolSource], MemoryBudget] = lambda _: MemoryBudget(),
        *,
        why_absent: Callable[[str], DeviceOpsError | None] = lambda name: None,
        work_of: Callable[[str], Mapping[OwnerKey, float]] = _no_work,
        leak_window_s: float = WINDOW_S,
    ) -> None:
        """`configured`: the budget of a pool until a caller sets another.

        `why_absent`: why the device of this name has no pool yet. None: there is no such device.
        `work_of`: the present work of each owner in a pool (id); memory that grows with its owner's work is no leak.
        """
        self._configured = configured
        self._why_absent = why_absent
        self._work_of = work_of
        self._leak_window_s = leak_window_s
        self._states: dict[str, PoolState] = {}
        self.claims = Claims()
        self.changes = PressureLog()
        """The changes of pressure, for watchers."""
        self.on_pressure: list[Callable[[PressureChange], None]] = []
        """Listeners: each change of pressure, once."""
        self.on_budget: list[Callable[[str], None]] = []
        """Listeners: id of a pool whose budget changed, before the effects of the change."""
        self.on_measured: list[Callable[[str], None]] = []
        """Listeners: id of a pool after each measurement and each change of its budget."""

    def add(self, source: PoolSource) -> None:
        """Add a pool with its configured budget. It stays until the server ends, also when its device is lost."""
        gauge = Gauge(source, self.claims, lambda measure: self._note(source.pool_id, measure))
        self._states[source.pool_id] = PoolState(source, gauge, self._configured(source), self._leak_window_s)

    def get(self, name: str) -> PoolState:
        """The pool by id or alias. MEMORY_POOL_NOT_FOUND names the pools there are. For a device whose worker was never
        ready: STARTING, or what keeps it from starting."""
        if state := self._states.get(name):
            return state
        for state in self._states.values():
            if name in state.source.aliases:
                return state
        if (why := self._why_absent(name)) is not None:
            raise why
        known = ", ".join(self.ids()) or "none yet"
        message = f"there is no memory pool {name!r}; known: {known}"
        raise NotFound(message, ErrorReason.MEMORY_POOL_NOT_FOUND, memory_pool_id=name, known=known)

    def ids(self) -> list[str]:
        """Ids of all pools: devices first, then `host` and `disk`."""
        states = self._states.values()
        return [s.source.pool_id for s in sorted(states, key=lambda s: (_ORDER.index(s.source.kind), s.source.pool_id))]

    async def measure(self, name: str) -> MemoryMeasure:
        """A measurement that begins now. Raises the source's error, so that no memory is granted without a measurement."""
        return await self.get(name).gauge.now()

    async def view(self, name: str) -> PoolView:
        """The pool, measured now. Figures that its source cannot measure are absent."""
        state = self.get(name)
        try:
            measure = await state.gauge.now()
        except DeviceOpsError as error:
            if isinstance(error, Unavailable) and error.reason is ErrorReason.STARTING:
                raise
            measure = None
        return state.view(measure, self.claims.outstanding_bytes(state.source.pool_id))

    async def list(self, kinds: Sequence[PoolKind] = ()) -> list[PoolView]:
        """The pools of these kinds, measured now and concurrently. No kinds: all pools."""
        wanted = [pool_id for pool_id in self.ids() if not kinds or self._states[pool_id].source.kind in kinds]
        return list(await asyncio.gather(*(self.view(pool_id) for pool_id in wanted)))

    def room(self, pool_id: str) -> Room:
        """What new work could have if nothing were claimed, as last measured."""
        return self.get(pool_id).room

    def set_budget(self, pool_id: str, budget: MemoryBudget) -> None:
        """Set the budget of a pool. `Budgets` frees memory for it."""
        state = self.get(pool_id)
        if budget == state.budget:
            return
        change = state.set_budget(budget)
        for tell in self.on_budget:
            tell(pool_id)
        self._graded(change)
        self._tell(pool_id)

    async def keep_sampled(self, every_s: float = SAMPLE_S) -> None:
        """Measure every pool periodically until cancelled. A pool that does not answer delays no other."""
        under_way: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for pool_id in self.ids():
                    if pool_id not in under_way or under_way[pool_id].done():
                        under_way[pool_id] = asyncio.create_task(self._sample(pool_id))
                await asyncio.sleep(every_s)
        finally:
            for task in under_way.values():
                task.cancel()

    async def _sample(self, pool_id: str) -> None:
        try:
            await self.measure(pool_id)
        except DeviceOpsError:
            # The history has a gap here, and the next view has no figures.
            return

    def _note(self, pool_id: str, measure: MemoryMeasure) -> None:
        state = self._states[pool_id]
        self._graded(state.note(measure))
        outstanding = self.claims.outstanding_bytes(pool_id)
        state.history.add(measure, outstanding, state.pressure, self._work_of(pool_id))
        self._tell(pool_id)

    def _graded(self, change: PressureChange | None) -> None:
        if change is not None:
            self.changes.add(change)
            for tell in self.on_pressure:
                tell(change)

    def _tell(self, pool_id: str) -> None:
        for tell in self.on_measured:
            tell(pool_id)
