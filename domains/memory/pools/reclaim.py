"""What a clean-up would do: the steps towards a target, from the mildest to the hardest. Nothing here has an effect."""

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Protocol

import msgspec

from domains.errors import DeviceOpsError, InvalidRequest, Violation
from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.pool import PoolView


class ReclaimLevel(IntEnum):
    """How far a clean-up may go. Each level includes those before; the numbers are those of the contract."""

    CACHES = 1
    IDLE = 2
    COMPACT = 3
    EMERGENCY = 4


class IdleModel(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded model that nothing uses at the moment, or that may be told so."""

    id: str
    bytes: int
    """What it holds in the pool."""
    idle_s: float
    """Since when nothing used it."""
    pinned: bool = False
    in_use: bool = False

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
    """Who can really give memory back."""

    async def empty_caches(self, pool_id: str) -> None:
        """Give back what allocators and caches keep for later."""
        ...

    async def unload(self, loaded_model_id: str) -> None: ...

    async def collect(self, pool_id: str, blob_id: str) -> None:
        """Take away what `spent_blobs` named. Raises what could not be freed."""
        ...

    async def compact(self, pool_id: str) -> None:
        """Move what remains together, between two jobs."""
        ...

    async def interrupt(self, job_id: str) -> None:
        """Take the job off its device, to go on when there is room."""
        ...

    def idle_models(self, pool_id: str) -> Sequence[IdleModel]:
        """The models loaded there, pinned and used ones marked."""
        ...

    def spent_blobs(self, pool_id: str) -> Sequence[MemoryOwner]:
        """What blobs hold there that nobody needs any more: the expired together, without an id; and by id each of those
        that are gone but could not be freed."""
        ...

    def running_jobs(self, pool_id: str) -> Sequence[RunningJob]:
        """The jobs that hold memory there."""
        ...


class ReclaimAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What to free."""

    free_bytes: int | None = None
    """Stop after so many bytes."""
    used_ratio: float | None = None
    """Stop when the use by all is down to this share of the pool. Neither: do all that the level allows."""
    max_level: ReclaimLevel = ReclaimLevel.IDLE
    keep_ids: tuple[str, ...] = ()
    """Loaded models and jobs that are not to be touched."""
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
    """One thing that a clean-up does, did or tried."""

    level: ReclaimLevel
    action: str
    """`empty_cache`, `collect`, `unload`, `compact`, `interrupt`."""
    owner: MemoryOwner
    """Whose memory it is."""
    freed_bytes: int | None = None
    """In a plan what the books promise, else measured. None: that cannot be told."""
    duration_s: float = 0.0
    failure: DeviceOpsError | None = None
    """Why it did not work, at the second try too."""


class ReclaimReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a clean-up did, or would do."""

    before: PoolView
    after: PoolView | None
    """None: it was only planned."""
    steps: tuple[ReclaimStep, ...]
    target_met: bool
    duration_s: float


def missing_bytes(ask: ReclaimAsk, measure: MemoryMeasure) -> int | None:
    """How far the target is away at the beginning. None: there is none, or the use cannot be measured."""
    if ask.free_bytes is not None:
        return ask.free_bytes
    if ask.used_ratio is None or measure.used_bytes is None or measure.total_bytes is None:
        return None
    return max(0, measure.used_bytes - int(ask.used_ratio * measure.total_bytes))


def idle_first(models: Sequence[IdleModel], budget: MemoryBudget, keep: Collection[str] = ()) -> list[IdleModel]:
    """The models that may be unloaded, the longest unused first. Pinned and used ones are not among them."""
    idle = [
        model
        for model in models
        if not model.pinned and not model.in_use and model.idle_s >= budget.idle_after_s and model.id not in keep
    ]
    return sorted(idle, key=lambda model: -model.idle_s)


def plan(
    ask: ReclaimAsk,
    measure: MemoryMeasure,
    budget: MemoryBudget,
    models: Sequence[IdleModel],
    jobs: Sequence[RunningJob],
    spent: Sequence[MemoryOwner] = (),
    *,
    computes: bool = True,
) -> list[ReclaimStep]:
    """All steps that may be needed, in order, until the books promise the target. `computes`: false for a disk, which has
    blobs and nothing else.

    A step whose gain cannot be told beforehand promises nothing, so the next ones stay in the plan.
    """
    steps: list[ReclaimStep] = []
    missing = missing_bytes(ask, measure)
    blobs = [_collect(owner) for owner in spent]
    idle = idle_first(models, budget, ask.keep_ids)
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
    # A cache that is measured and empty has nothing to give.
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
