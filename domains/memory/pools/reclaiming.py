"""Clean-ups that really happen: each step is measured before and after, and a failed one is tried once more."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from domains.errors import DeadlineExceeded, DeviceOpsError, ErrorReason, InternalError
from domains.memory.measure import MemoryMeasure
from domains.memory.pools.pool import PoolKind
from domains.memory.pools.pools import Pools
from domains.memory.pools.pressure import HYSTERESIS, Pressure
from domains.memory.pools.reclaim import (
    ReclaimAsk,
    Reclaimer,
    ReclaimLevel,
    ReclaimReport,
    ReclaimStep,
    idle_first,
    missing_bytes,
    plan,
)
from domains.memory.pools.state import PoolState, Upkeep

AGAIN_AFTER_S = 30.0
"""A pool whose pressure stays high is not cleaned more often than this."""
_GONE = (ErrorReason.DEVICE_LOST, ErrorReason.DEVICE_RECOVERING, ErrorReason.WORKER_RESTARTING)
"""Reasons for which nothing in the pool can be freed by steps."""


class Reclaiming:
    """Frees memory of pools, asked or by itself. One event loop; one clean-up a pool at a time."""

    def __init__(self, pools: Pools, reclaimer: Reclaimer) -> None:
        self._pools = pools
        self._reclaimer = reclaimer
        self._tasks: dict[str, asyncio.Task[ReclaimReport]] = {}
        self._last: dict[str, tuple[Pressure, float]] = {}
        """The level and time of the last automatic clean-up of each pool."""
        self.on_reclaimed: list[Callable[[ReclaimReport], None]] = []
        """Listeners: the report of each automatic clean-up that took a step."""
        pools.on_measured.append(self._relieve)

    async def reclaim(self, name: str, ask: ReclaimAsk, *, validate_only: bool = False) -> ReclaimReport:
        """Free memory until the target is met or nothing more may be taken; with `validate_only`, only tell."""
        state = self._pools.get(name)
        if validate_only:
            return await self._planned(state, ask)
        return await self._clean(state, ask, Upkeep.NONE)

    async def _clean(self, state: PoolState, ask: ReclaimAsk, upkeep: Upkeep) -> ReclaimReport:
        async with state.changing:
            with state.upkept(upkeep):
                return await self._run(state, ask)

    async def evict(self, pool_id: str, need_bytes: int) -> Sequence[str]:
        """Unload idle models for so many more free bytes; none if they would not do. The ids of the unloaded."""
        state = self._pools.get(pool_id)
        async with state.changing:
            victims = self.victims(pool_id, need_bytes)
            if sum(model_bytes for _, model_bytes in victims) < need_bytes:
                return ()
            return [loaded_id for loaded_id, _ in victims if await self._unload(pool_id, loaded_id)]

    def victims(self, pool_id: str, need_bytes: int, idle_after_s: float | None = None) -> list[tuple[str, int]]:
        """Ids and bytes of the idle models that would have to go for so many bytes, the longest unused first."""
        budget = self._pools.get(pool_id).budget
        if idle_after_s is not None:
            budget = msgspec.structs.replace(budget, idle_after_s=idle_after_s)
        victims: list[tuple[str, int]] = []
        for model in idle_first(self._reclaimer.idle_models(pool_id), budget):
            if need_bytes <= 0:
                break
            victims.append((model.id, model.bytes))
            need_bytes -= model.bytes
        return victims

    async def unload(self, pool_id: str, loaded_model_ids: Sequence[str]) -> None:
        """Unload these, then give the allocator's cache back. The caller holds the pool's lock."""
        for loaded_model_id in loaded_model_ids:
            await self._reclaimer.unload(loaded_model_id)
        await self._reclaimer.empty_caches(pool_id)

    async def _unload(self, pool_id: str, loaded_model_id: str) -> bool:
        try:
            await self.unload(pool_id, [loaded_model_id])
        except DeviceOpsError:
            # It stays; who asked finds too little room and says so.
            return False
        return True

    async def _planned(self, state: PoolState, ask: ReclaimAsk) -> ReclaimReport:
        before = await self._pools.view(state.source.pool_id)
        steps = self._plan(state, ask, before.measure)
        missing = missing_bytes(ask, before.measure)
        promised = sum(step.freed_bytes or 0 for step in steps)
        return ReclaimReport(
            before=before,
            after=None,
            steps=tuple(steps),
            target_met=_has_no_target(ask) if missing is None else promised >= missing,
            duration_s=0.0,
        )

    def _plan(self, state: PoolState, ask: ReclaimAsk, measure: MemoryMeasure) -> list[ReclaimStep]:
        pool_id = state.source.pool_id
        models, jobs = self._reclaimer.idle_models(pool_id), self._reclaimer.running_jobs(pool_id)
        spent, computes = self._reclaimer.spent_blobs(pool_id), state.source.kind is not PoolKind.DISK
        return plan(ask, measure, state.budget, models, jobs, spent, computes=computes)

    async def _run(self, state: PoolState, ask: ReclaimAsk) -> ReclaimReport:
        begin, pool_id = time.monotonic(), state.source.pool_id
        before = await self._pools.view(pool_id)
        # Every step that the level allows: what the books promise and what is measured may differ.
        everything = msgspec.structs.replace(ask, free_bytes=None, used_ratio=None)
        measure, done = before.measure, list[ReclaimStep]()
        for step in self._plan(state, everything, measure):
            left_s = ask.max_s - (time.monotonic() - begin)
            if left_s <= 0 or _met(ask, before.measure, measure):
                break
            try:
                took, measure = await self._take(pool_id, step, measure, left_s)
            except DeviceOpsError:
                if not done:
                    raise
                break
            done.append(took)
        after = await self._pools.view(pool_id)
        met = (
            all(step.failure is None for step in done)
            if _has_no_target(ask)
            else _met(ask, before.measure, after.measure)
        )
        return ReclaimReport(
            before=before, after=after, steps=tuple(done), target_met=met, duration_s=time.monotonic() - begin
        )

    async def _take(
        self, pool_id: str, step: ReclaimStep, measure: MemoryMeasure, left_s: float
    ) -> tuple[ReclaimStep, MemoryMeasure]:
        """One step, tried twice at most. Raises only if the whole pool is gone."""
        begin = time.monotonic()
        failure = await self._try(pool_id, step, left_s)
        if failure is not None and failure.reason is not ErrorReason.RUN_TIMEOUT:
            failure = await self._try(pool_id, step, left_s - (time.monotonic() - begin))
        after = (await self._pools.view(pool_id)).measure
        freed = _freed(measure, after)
        took = msgspec.structs.replace(step, freed_bytes=freed, duration_s=time.monotonic() - begin, failure=failure)
        return took, after

    async def _try(self, pool_id: str, step: ReclaimStep, left_s: float) -> DeviceOpsError | None:
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                await self._act(pool_id, step)
        except TimeoutError:
            message = f"{step.action} was not done when the time of the clean-up was over; allow it more"
            return DeadlineExceeded(message, ErrorReason.RUN_TIMEOUT, action=step.action)
        except DeviceOpsError as error:
            if error.reason in _GONE:
                raise
            return error
        except Exception:
            message = f"{step.action} failed in a way that nobody expected"
            return InternalError(message, ErrorReason.INVARIANT_BROKEN, action=step.action)
        return None

    def _act(self, pool_id: str, step: ReclaimStep) -> Awaitable[None]:
        match step.action:
            case "collect":
                return self._reclaimer.collect(pool_id, step.owner.id)
            case "empty_cache":
                return self._reclaimer.empty_caches(pool_id)
            case "unload":
                # The allocator keeps what a model leaves behind until its cache is emptied.
                return self.unload(pool_id, [step.owner.id])
            case "compact":
                return self._reclaimer.compact(pool_id)
            case _:
                return self._interrupt(pool_id, step.owner.id)

    async def _interrupt(self, pool_id: str, job_id: str) -> None:
        await self._reclaimer.interrupt(job_id)
        await self._reclaimer.empty_caches(pool_id)

    def _relieve(self, pool_id: str) -> None:
        """The server's own clean-up: caches from WARNING, idle models from CRITICAL."""
        state = self._pools.get(pool_id)
        level = state.pressure
        if level is None or level < Pressure.WARNING:
            self._last.pop(pool_id, None)
            return
        if not state.budget.automatic_reclaim or state.changing.locked() or pool_id in self._tasks:
            return
        last_level, last_s = self._last.get(pool_id, (Pressure.LOW, 0.0))
        if level <= last_level and time.monotonic() - last_s < AGAIN_AFTER_S:
            return
        self._last[pool_id] = level, time.monotonic()
        task = self._tasks[pool_id] = asyncio.create_task(self._relief(state, level))
        task.add_done_callback(lambda done: self._relieved(pool_id, done))

    async def _relief(self, state: PoolState, level: Pressure) -> ReclaimReport:
        if level < Pressure.CRITICAL:
            ask = ReclaimAsk(max_level=ReclaimLevel.CACHES)
        else:
            excess = _excess(state, state.budget.critical_ratio - HYSTERESIS)
            ask = ReclaimAsk(free_bytes=excess, max_level=ReclaimLevel.IDLE)
        return await self._clean(state, ask, Upkeep.RELIEF)

    def _relieved(self, pool_id: str, task: asyncio.Task[ReclaimReport]) -> None:
        del self._tasks[pool_id]
        if task.cancelled() or isinstance(task.exception(), DeviceOpsError):
            # The pool went away meanwhile, and its memory with it.
            return
        report = task.result()
        for tell in self.on_reclaimed if report.steps else ():
            tell(report)


def _has_no_target(ask: ReclaimAsk) -> bool:
    return ask.free_bytes is None and ask.used_ratio is None


def _use(measure: MemoryMeasure) -> int | None:
    return measure.used_bytes if measure.used_bytes is not None else measure.held_bytes


def _freed(before: MemoryMeasure, after: MemoryMeasure) -> int | None:
    """What the pool has more. Others may have taken more than was freed: then it is nothing."""
    one, other = _use(before), _use(after)
    return None if one is None or other is None else max(0, one - other)


def _met(ask: ReclaimAsk, begin: MemoryMeasure, now: MemoryMeasure) -> bool:
    if ask.free_bytes is not None:
        return ask.free_bytes == 0 or (_freed(begin, now) or 0) >= ask.free_bytes
    if ask.used_ratio is None or now.used_bytes is None or not now.total_bytes:
        return False
    return now.used_bytes / now.total_bytes <= ask.used_ratio


def _excess(state: PoolState, ratio: float) -> int:
    """Bytes above this share of what may be used, of the pool or of the limit."""
    measure, budget = state.measure, state.budget
    if measure is None:
        return 0
    above = [0]
    if measure.used_bytes is not None and measure.total_bytes is not None:
        above.append(measure.used_bytes - int(ratio * max(0, measure.total_bytes - budget.headroom_bytes)))
    if measure.held_bytes is not None and budget.limit_bytes is not None:
        above.append(measure.held_bytes - int(ratio * budget.limit_bytes))
    return max(above)
