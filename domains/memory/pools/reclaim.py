"""Planning a clean-up: the steps towards a target, mildest first. Nothing here frees memory."""

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Protocol

import msgspec

from domains.errors import DeviceOpsError, InvalidRequest, Violation
from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.pool import PoolView


class ReclaimLevel(IntEnum):
    """The levels of a clean-up, with the numbers of the contract. Each level includes the ones before."""

    CACHES = 1
    IDLE = 2
    COMPACT = 3
    EMERGENCY = 4


class IdleModel(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded model, with the facts that decide whether it is idle."""

    id: str
    bytes: int
    """Bytes that the model holds in the pool."""
    idle_s: float
    """Seconds since the last use."""
    pinned: bool = False
    """Whether it must stay although others need room: it is pinned, or within its keep-alive."""
    in_use: bool = False
    load_s: float | None = None
    """Seconds that it took to load. None: not known."""

    @property
    def owner(self) -> MemoryOwner:
        """The model as an owner of the pool."""
        return MemoryOwner(kind=OwnerKind.LOADED_MODEL, id=self.id, live_bytes=self.bytes, reclaimable=True)


class RunningJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that holds memory in a pool."""

    id: str
    bytes: int
    priority: int


class Reclaimer(Protocol):
    """The operations that free memory, and the candidates for them."""

    async def empty_caches(self, pool_id: str) -> None:
        """Empty the caches of the allocators."""
        ...

    async def unload(self, loaded_model_id: str) -> None: ...

    async def collect(self, pool_id: str, blob_id: str) -> None:
        """Remove the blobs of a `spent_blobs` owner. Raises an error for bytes that could not be freed."""
        ...

    async def compact(self, pool_id: str) -> None:
        """Compact the memory of the allocators between two jobs."""
        ...

    async def interrupt(self, job_id: str) -> None:
        """Take a job off its device. The job continues when there is room."""
        ...

    def idle_models(self, pool_id: str) -> Sequence[IdleModel]:
        """The models loaded in the pool, pinned and used ones marked."""
        ...

    def spent_blobs(self, pool_id: str) -> Sequence[MemoryOwner]:
        """The memory of blobs that are not needed: all expired blobs as one owner without an id, and each removed blob
        whose bytes could not be freed by its id."""
        ...

    def running_jobs(self, pool_id: str) -> Sequence[RunningJob]:
        """The jobs that hold memory in the pool."""
        ...


class ReclaimAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a clean-up."""

    free_bytes: int | None = None
    """Stop when so many bytes are freed."""
    used_ratio: float | None = None
    """Stop when the use by all processes is at most this share of the pool. Neither target: do all that the level allows."""
    max_level: ReclaimLevel = ReclaimLevel.IDLE
    keep_ids: tuple[str, ...] = ()
    """Loaded models and jobs that stay."""
    max_s: float = 30.0

    def __post_init__(self) -> None:
        wrong: list[Violation] = []
        if self.free_bytes is not None and self.free_bytes < 0:
            wrong.append(Violation(field="free_bytes", message=f"{self.free_bytes} is negative", allowed="0.."))
        if self.used_ratio is not None and not 0 <= self.used_ratio <= 1:
            text = f"{self.used_ratio} is not within 0..1"
            wrong.append(Violation(field="used_ratio", message=text, allowed="0..1"))
        if not 0.1 <= self.max_s <= 600:
            text = f"{self.max_s} s is not within 0.1 s..10 min"
            wrong.append(Violation(field="max_duration", message=text, allowed="0.1 s..10 min"))
        if wrong:
            raise InvalidRequest(wrong)


class ReclaimStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a clean-up: planned, done or failed."""

    level: ReclaimLevel
    action: str
    """`empty_cache`, `collect`, `unload`, `compact`, `interrupt`."""
    owner: MemoryOwner
    """The owner of the memory."""
    freed_bytes: int | None = None
    """Expected in a plan, measured in a report. None: unknown."""
    duration_s: float = 0.0
    failure: DeviceOpsError | None = None
    """The error of the second try."""


class ReclaimReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a clean-up or of its plan."""

    before: PoolView
    after: PoolView | None
    """None: the clean-up was only planned."""
    steps: tuple[ReclaimStep, ...]
    target_met: bool
    duration_s: float


def missing_bytes(ask: ReclaimAsk, measure: MemoryMeasure) -> int | None:
    """Bytes to free to reach the target. None: there is no target, or the use cannot be measured."""
    if ask.free_bytes is not None:
        return ask.free_bytes
    if ask.used_ratio is None or measure.used_bytes is None or measure.total_bytes is None:
        return None
    return max(0, measure.used_bytes - int(ask.used_ratio * measure.total_bytes))


def idle_first(models: Sequence[IdleModel], idle_after_s: float, keep: Collection[str] = ()) -> list[IdleModel]:
    """The models that may be unloaded, longest unused first. Pinned and used ones, and those unused for less than
    `idle_after_s`, are left out."""
    idle = [
        model
        for model in models
        if not model.pinned and not model.in_use and model.idle_s >= idle_after_s and model.id not in keep
    ]
    return sorted(idle, key=lambda model: -model.idle_s)


def cheapest(unused: Sequence[IdleModel], need_bytes: int) -> list[IdleModel]:
    """The models whose end gives so many bytes and costs least; all of them if they do not suffice.

    A model costs the time of its next load, which becomes less likely the longer it is unused; so the order is by
    seconds of load for each byte and each second without use (GreedyDual-Size: Cao and Irani, 1997). Models that load
    equally fast go longest unused first. A model without which the others suffice stays.
    """
    chosen: list[IdleModel] = []
    for model in sorted(unused, key=lambda model: (_reload_cost(model, unused), -model.idle_s)):
        if sum(one.bytes for one in chosen) >= need_bytes:
            break
        chosen.append(model)
    spare = sum(one.bytes for one in chosen) - need_bytes
    for model in reversed(chosen[:-1]):
        if model.bytes <= spare:
            chosen.remove(model)
            spare -= model.bytes
    return chosen


def _reload_cost(model: IdleModel, others: Sequence[IdleModel]) -> float:
    """Seconds of load by bytes and seconds without use. A model whose load was not measured loads as fast as the others."""
    rates = [one.load_s / max(1, one.bytes) for one in others if one.load_s is not None]
    usual = sum(rates) / len(rates) if rates else 1.0
    rate = usual if model.load_s is None else model.load_s / max(1, model.bytes)
    return rate / max(model.idle_s, 1e-3)


def plan(
    ask: ReclaimAsk,
    measure: MemoryMeasure,
    budget: MemoryBudget,
    models: Sequence[IdleModel],
    jobs: Sequence[RunningJob],
    spent: Sequence[MemoryOwner],
    *,
    computes: bool,
) -> list[ReclaimStep]:
    """The steps in order, until their expected gain reaches the target. `computes`: False for a disk, which has only blobs.

    A step with an unknown gain counts as 0, so the steps after it stay in the plan.
    """
    steps: list[ReclaimStep] = []
    missing = missing_bytes(ask, measure)
    blobs = [_collect(owner) for owner in spent]
    idle = idle_first(models, budget.idle_after_s, ask.keep_ids)
    for step in [*blobs, *(_worker_steps(measure, idle, jobs, ask.keep_ids) if computes else ())]:
        if step.level > ask.max_level or (missing is not None and missing <= 0):
            break
        steps.append(step)
        if missing is not None:
            missing -= step.freed_bytes or 0
    return steps


def _collect(owner: MemoryOwner) -> ReclaimStep:
    return ReclaimStep(level=ReclaimLevel.CACHES, action="collect", owner=owner, freed_bytes=owner.live_bytes)


def _worker_steps(
    measure: MemoryMeasure, idle: Sequence[IdleModel], jobs: Sequence[RunningJob], keep: Collection[str]
) -> list[ReclaimStep]:
    cached = MemoryOwner(kind=OwnerKind.CACHE, id="allocator", live_bytes=measure.cached_bytes or 0)
    steps: list[ReclaimStep] = []
    # A cache that is measured as empty needs no step.
    if measure.cached_bytes != 0:
        steps.append(
            ReclaimStep(level=ReclaimLevel.CACHES, action="empty_cache", owner=cached, freed_bytes=measure.cached_bytes)
        )
    steps += [
        ReclaimStep(level=ReclaimLevel.IDLE, action="unload", owner=model.owner, freed_bytes=model.bytes)
        for model in idle
    ]
    rest = MemoryOwner(kind=OwnerKind.UNATTRIBUTED, live_bytes=0)
    steps.append(ReclaimStep(level=ReclaimLevel.COMPACT, action="compact", owner=rest))
    steps += [
        ReclaimStep(level=ReclaimLevel.EMERGENCY, action="interrupt", owner=_job(job), freed_bytes=job.bytes)
        for job in sorted(jobs, key=lambda job: (job.priority, -job.bytes))
        if job.id not in keep
    ]
    return steps


def _job(job: RunningJob) -> MemoryOwner:
    return MemoryOwner(kind=OwnerKind.JOB, id=job.id, live_bytes=job.bytes)
