"""Running clean-ups: each step is measured before and after, and tried once more if it fails."""

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
    cheapest,
    idle_first,
    missing_bytes,
    plan,
)
from domains.memory.pools.state import PoolState, Upkeep

AGAIN_AFTER_S = 30.0
"""The shortest time between two automatic clean-ups of a pool at the same pressure level."""
_GONE = (ErrorReason.DEVICE_LOST, ErrorReason.DEVICE_RECOVERING, ErrorReason.WORKER_RESTARTING)
"""Reasons for which no step can free anything in the pool."""


class Reclaiming:
    """The clean-ups of all pools, requested and automatic. One event loop. One clean-up of a pool at a time."""

    def __init__(self, pools: Pools, reclaimer: Reclaimer) -> None:
        self._pools = pools
        self._reclaimer = reclaimer
        self._tasks: dict[str, asyncio.Task[ReclaimReport]] = {}
        self._last: dict[str, tuple[Pressure, float]] = {}
        """By pool: level and time of the last automatic clean-up."""
        self.on_reclaimed: list[Callable[[ReclaimReport], None]] = []
        """Listeners: the report of each automatic clean-up that took a step."""
        pools.on_measured.append(self._relieve)

    async def reclaim(self, name: str, ask: ReclaimAsk, *, validate_only: bool = False) -> ReclaimReport:
        """Free memory until the target is met or no step is left; with `validate_only`, only plan."""
        state = self._pools.get(name)
        if validate_only:
            return await self._planned(state, ask)
        return await self._clean(state, ask, Upkeep.NONE)

    async def _clean(self, state: PoolState, ask: ReclaimAsk, upkeep: Upkeep) -> ReclaimReport:
        async with state.changing:
            with state.upkept(upkeep):
                return await self._run(state, ask)

    async def evict(self, pool_id: str, need_bytes: int) -> Sequence[str]:
        """Unload idle models to free so many bytes, or none if they do not suffice. Returns the unloaded ids."""
        return await self._evict(pool_id, need_bytes, None)

    async def make_room(self, pool_id: str, need_bytes: int) -> Sequence[str]:
        """Unload models that no job uses, however recently one did, or none if they do not suffice. Returns their ids.

        The caller has work that cannot run otherwise. Pinned models and those within their keep-alive stay.
        """
        return await self._evict(pool_id, need_bytes, 0.0)

    async def _evict(self, pool_id: str, need_bytes: int, idle_after_s: float | None) -> Sequence[str]:
        state = self._pools.get(pool_id)
        async with state.changing:
            victims = self.victims(pool_id, need_bytes, idle_after_s)
            if sum(model_bytes for _, model_bytes in victims) < need_bytes:
                return ()
            return [loaded_id for loaded_id, _ in victims if await self._unload(pool_id, loaded_id)]

    def victims(self, pool_id: str, need_bytes: int, idle_after_s: float | None = None) -> list[tuple[str, int]]:
        """Ids and bytes of the unused models to unload for so many bytes, see `cheapest`.

        `idle_after_s`: only those unused for so long. None: as the pool's budget says.
        """
        after_s = self._pools.get(pool_id).budget.idle_after_s if idle_after_s is None else idle_after_s
        unused = idle_first(self._reclaimer.idle_models(pool_id), after_s)
        return [(model.id, model.bytes) for model in cheapest(unused, need_bytes)]

    async def unload(self, pool_id: str, loaded_model_ids: Sequence[str]) -> None:
        """Unload these models, then empty the allocator's cache. The caller holds the pool's lock."""
        for loaded_model_id in loaded_model_ids:
            await self._reclaimer.unload(loaded_model_id)
        await self._reclaimer.empty_caches(pool_id)

    async def _unload(self, pool_id: str, loaded_model_id: str) -> bool:
        try:
            await self.unload(pool_id, [loaded_model_id])
        except DeviceOpsError:
            # The model stays, and the caller finds too little room.
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
        # The plan has every step that the level allows, because measured gains may differ from expected ones.
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
        """Run one step, at most twice. Raises only if the device or worker of the pool is gone."""
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
            async with asyncio.timeout(left_s):
                await self._act(pool_id, step)
        except TimeoutError:
            message = f"{step.action} was not done when the time of the clean-up was over; allow it more"
            return DeadlineExceeded(message, ErrorReason.RUN_TIMEOUT, action=step.action)
        except DeviceOpsError as error:
            if error.reason in _GONE:
                raise
            return error
        except Exception:
            message = f"{step.action} failed with an unexpected error"
            return InternalError(message, ErrorReason.INVARIANT_BROKEN, action=step.action)
        return None

    def _act(self, pool_id: str, step: ReclaimStep) -> Awaitable[None]:
        match step.action:
            case "collect":
                return self._reclaimer.collect(pool_id, step.owner.id)
            case "empty_cache":
                return self._reclaimer.empty_caches(pool_id)
            case "unload":
                # The allocator caches the memory of an unloaded model.
                return self.unload(pool_id, [step.owner.id])
            case "compact":
                return self._reclaimer.compact(pool_id)
            case _:
                return self._interrupt(pool_id, step.owner.id)

    async def _interrupt(self, pool_id: str, job_id: str) -> None:
        await self._reclaimer.interrupt(job_id)
        await self._reclaimer.empty_caches(pool_id)

    def _relieve(self, pool_id: str) -> None:
        """Start an automatic clean-up: caches from WARNING on, idle models from CRITICAL on."""
        state = self._pools.get(pool_id)
        level = state.pressure
        if level is None or level < Pressure.WARNING:
            self._last.pop(pool_id, None)
            return
        if not state.budget.automatic_reclaim or state.changing.locked() or pool_id in self._tasks:
            return
        last = self._last.get(pool_id)
        if last is not None and level <= last[0] and time.monotonic() - last[1] < AGAIN_AFTER_S:
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
            # The device or worker of the pool was lost meanwhile, and its memory is free.
            return
        report = task.result()
        for tell in self.on_reclaimed if report.steps else ():
            tell(report)


def _has_no_target(ask: ReclaimAsk) -> bool:
    return ask.free_bytes is None and ask.used_ratio is None


def _use(measure: MemoryMeasure) -> int | None:
    return measure.used_bytes if measure.used_bytes is not None else measure.held_bytes


def _freed(before: MemoryMeasure, after: MemoryMeasure) -> int | None:
    """The decrease of the use, at least 0: other processes may have allocated meanwhile."""
    one, other = _use(before), _use(after)
    return None if one is None or other is None else max(0, one - other)


def _met(ask: ReclaimAsk, begin: MemoryMeasure, now: MemoryMeasure) -> bool:
    if ask.free_bytes is not None:
        return ask.free_bytes == 0 or (_freed(begin, now) or 0) >= ask.free_bytes
    if ask.used_ratio is None or now.used_bytes is None or not now.total_bytes:
        return False
    return now.used_bytes / now.total_bytes <= ask.used_ratio


def _excess(state: PoolState, ratio: float) -> int:
    """Bytes above this share of the pool or of the limit, whichever is more."""
    measure, budget = state.measure, state.budget
    if measure is None:
        return 0
    above = [0]
    if measure.used_bytes is not None and measure.total_bytes is not None:
        above.append(measure.used_bytes - int(ratio * max(0, measure.total_bytes - budget.headroom_bytes)))
    if measure.held_bytes is not None and budget.limit_bytes is not None:
        above.append(measure.held_bytes - int(ratio * budget.limit_bytes))
    return max(above)
