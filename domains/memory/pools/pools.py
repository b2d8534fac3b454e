"""The memory pools of this server: measured when asked, sampled all the time, each with its budget and its books."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from domains.errors import DeviceOpsError, ErrorReason, NotFound, Unavailable
from domains.memory.measure import MemoryMeasure
from domains.memory.pools.books import Books
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.gauge import Gauge
from domains.memory.pools.leaks import WINDOW_S, OwnerKey
from domains.memory.pools.pool import HOST, PoolKind, PoolSource, PoolView, Room
from domains.memory.pools.pressure import PressureChange
from domains.memory.pools.pressure_log import PressureLog
from domains.memory.pools.state import PoolState

_ORDER = (PoolKind.DEVICE, PoolKind.HOST, PoolKind.DISK)


class Pools:
    """All pools. One event loop."""

    def __init__(
        self,
        configured: Callable[[PoolSource], MemoryBudget] = lambda _: MemoryBudget(),
        *,
        leak_window_s: float = WINDOW_S,
    ) -> None:
        """`configured`: the budget that holds until somebody sets another."""
        self._configured = configured
        self._leak_window_s = leak_window_s
        self._states: dict[str, PoolState] = {}
        self.books = Books()
        self.changes = PressureLog()
        """Each change of pressure, for those who watch."""
        self.on_pressure: Callable[[PressureChange], None] | None = None
        """Told of each change of pressure, once."""
        self.on_budget: Callable[[str], None] | None = None
        """Told the id of a pool in which another budget holds, before what follows from it."""
        self.work_of: Callable[[str], Mapping[OwnerKey, float]] | None = None
        """How much each owner in a pool has to do now; memory that grows with its owner's work is no leak."""
        self.is_starting: Callable[[str], bool] | None = None
        """Whether a name is that of a device whose worker is still starting; its pool will come."""
        self.on_measured: list[Callable[[str], None]] = []
        """Told the pool's id after each measurement and each change of its budget."""
        self.on_removed: list[Callable[[str], None]] = []

    def add(self, source: PoolSource) -> None:
        """A pool appears, or comes back: with its configured budget if it is new."""
        known = self._states.get(source.pool_id)
        gauge = Gauge(source, self.books, lambda measure: self._note(source.pool_id, measure))
        if known is not None:
            known.source, known.gauge = source, gauge
        else:
            self._states[source.pool_id] = PoolState(source, gauge, self._configured(source), self._leak_window_s)

    def remove(self, pool_id: str) -> None:
        """A pool vanishes; who has a reservation there hears of it through `on_removed`."""
        if self._states.pop(pool_id, None) is not None:
            for tell in self.on_removed:
                tell(pool_id)
            self.books.forget(pool_id)

    def get(self, name: str) -> PoolState:
        """By id or alias; `cpu` means `host`. MEMORY_POOL_NOT_FOUND names those there are."""
        if state := self._states.get(HOST if name == "cpu" else name):
            return state
        for state in self._states.values():
            if name in state.source.aliases:
                return state
        if self.is_starting and self.is_starting(name):
            message = f"the worker of device {name!r} is still starting; try again in a few seconds"
            raise Unavailable(message, ErrorReason.STARTING, memory_pool_id=name)
        known = ", ".join(self.ids()) or "none yet"
        message = f"there is no memory pool {name!r}; known: {known}"
        raise NotFound(message, ErrorReason.MEMORY_POOL_NOT_FOUND, memory_pool_id=name, known=known)

    def ids(self) -> list[str]:
        """Of all pools: devices first, then `host` and `disk`."""
        states = self._states.values()
        return [s.source.pool_id for s in sorted(states, key=lambda s: (_ORDER.index(s.source.kind), s.source.pool_id))]

    async def measure(self, name: str) -> MemoryMeasure:
        """The pool, by a measurement that begins now. Raises what the source raises, so that nothing is promised blindly."""
        return await self.get(name).gauge.now()

    async def view(self, name: str) -> PoolView:
        """The pool, measured now. What its source cannot tell is absent."""
        state = self.get(name)
        try:
            measure = await state.gauge.now()
        except DeviceOpsError as error:
            if isinstance(error, Unavailable) and error.reason is ErrorReason.STARTING:
                raise
            measure = None
        return state.view(measure, self.books.promised_bytes(state.source.pool_id))

    async def list(self, kinds: Sequence[PoolKind] = ()) -> list[PoolView]:
        """All pools of these kinds, measured now, side by side. No kinds: all."""
        wanted = [pool_id for pool_id in self.ids() if not kinds or self._states[pool_id].source.kind in kinds]
        return list(await asyncio.gather(*(self.view(pool_id) for pool_id in wanted)))

    def room(self, pool_id: str) -> Room:
        """What new work could have there if nothing were promised, as last measured."""
        return self.get(pool_id).room

    def set_budget(self, pool_id: str, budget: MemoryBudget | None) -> None:
        """Let another budget hold; None: the configured one. Who must give way for it is `Budgets`' business."""
        state = self.get(pool_id)
        budget = budget or state.configured
        if budget == state.budget:
            return
        change = state.set_budget(budget)
        if self.on_budget:
            self.on_budget(pool_id)
        self._graded(change)
        self._tell(pool_id)

    async def keep_sampled(self, every_s: float = 1.0) -> None:
        """Measure every pool again and again; ends when cancelled. A pool that does not answer delays no other."""
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
            # Not measured: the history has a gap there, and the next view says so.
            return

    def _note(self, pool_id: str, measure: MemoryMeasure) -> None:
        state = self._states.get(pool_id)
        if state is None:
            return
        state.measure = measure
        self._graded(state.note(measure))
        work = self.work_of(pool_id) if self.work_of else None
        state.history.add(measure, self.books.promised_bytes(pool_id), state.pressure, work)
        self._tell(pool_id)

    def _graded(self, change: PressureChange | None) -> None:
        if change is not None:
            self.changes.add(change)
            if self.on_pressure:
                self.on_pressure(change)

    def _tell(self, pool_id: str) -> None:
        for tell in self.on_measured:
            tell(pool_id)
