"""A pool whose figures a test writes, a reclaimer that changes them, and a clock that a test turns."""

import heapq
import itertools
from collections.abc import Callable, Sequence

from domains.clock import ExpiryClock
from domains.errors import DeviceOpsError
from domains.memory.measure import MemoryMeasure, MemoryOwner, OwnerKind
from domains.memory.pools.budget import MemoryBudget
from domains.memory.pools.pool import PoolKind
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaim import IdleModel, RunningJob
from domains.memory.pools.reservation_queue import ReservationQueue
from domains.memory.pools.reservations import Reservations


class ScriptedPool:
    """A source of a pool: a simulated device's memory."""

    def __init__(self, total: int | None = 1000, pool_id: str = "sim-0", kind: PoolKind = PoolKind.DEVICE) -> None:
        self.pool_id = pool_id
        self.kind = kind
        self.device_id = pool_id if kind is PoolKind.DEVICE else ""
        self.aliases: tuple[str, ...] = ("sim:0",)
        self.total = total
        self.others = 0
        """Used by other processes."""
        self.cached = 0
        self.peak: int | None = None
        """The most that was live between two measurements."""
        self.models: dict[str, int] = {}
        self.jobs: dict[str, int] = {}
        self.time_s = 1000.0
        self.error: DeviceOpsError | OSError | None = None
        self.silent = False
        """Whether only the driver tells: its worker is busy."""
        self.measured = 0

    @property
    def live(self) -> int:
        return sum(self.models.values()) + sum(self.jobs.values())

    async def measure(self) -> MemoryMeasure:
        self.measured += 1
        if self.error:
            raise self.error
        held = self.live + self.cached
        if self.silent:
            return MemoryMeasure(time_s=self.time_s, total_bytes=self.total, used_bytes=self.others + held)
        models = [MemoryOwner(kind=OwnerKind.LOADED_MODEL, id=i, live_bytes=b) for i, b in self.models.items()]
        jobs = [MemoryOwner(kind=OwnerKind.JOB, id=i, live_bytes=b) for i, b in self.jobs.items()]
        return MemoryMeasure(
            time_s=self.time_s,
            total_bytes=self.total,
            used_bytes=None if self.total is None else self.others + held,
            held_bytes=held,
            live_bytes=self.live,
            peak_live_bytes=self.peak,
            cached_bytes=self.cached,
            owners=(*models, *jobs),
        )


class ScriptedReclaimer:
    """Gives back what the scripted pool holds; keeps to the cache what the allocator would."""

    def __init__(self, pool: ScriptedPool) -> None:
        self.pool = pool
        self.idle: dict[str, IdleModel] = {}
        self.spent: list[MemoryOwner] = []
        self.calls: list[str] = []
        self.failures: dict[str, list[Exception]] = {}

    def load(self, name: str, size: int, idle_s: float = 1000.0, *, pinned: bool = False, in_use: bool = False) -> None:
        self.pool.models[name] = size
        self.idle[name] = IdleModel(id=name, bytes=size, idle_s=idle_s, pinned=pinned, in_use=in_use)

    def _called(self, call: str) -> None:
        self.calls.append(call)
        if failures := self.failures.get(call):
            raise failures.pop(0)

    async def empty_caches(self, pool_id: str) -> None:
        self._called("empty_caches")
        self.pool.cached = 0

    async def unload(self, loaded_model_id: str) -> None:
        self._called(f"unload {loaded_model_id}")
        self.pool.cached += self.pool.models.pop(loaded_model_id)
        del self.idle[loaded_model_id]

    async def collect(self, pool_id: str, blob_id: str) -> None:
        self._called(f"collect {blob_id}")

    def spent_blobs(self, pool_id: str) -> Sequence[MemoryOwner]:
        return self.spent

    async def compact(self, pool_id: str) -> None:
        self._called("compact")

    async def interrupt(self, job_id: str) -> None:
        self._called(f"interrupt {job_id}")
        self.pool.cached += self.pool.jobs.pop(job_id)

    def idle_models(self, pool_id: str) -> Sequence[IdleModel]:
        return list(self.idle.values())

    def running_jobs(self, pool_id: str) -> Sequence[RunningJob]:
        return [RunningJob(id=i, bytes=b, priority=int(i[-1])) for i, b in self.pool.jobs.items()]


class Turned:
    """What `call_later` answers."""

    def __init__(self) -> None:
        self.off = False

    def cancel(self) -> None:
        self.off = True


class TurnedClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Turned, Callable[[], None]]] = []
        self._count = itertools.count()

    def __call__(self) -> float:
        return self.now

    def call_later(self, after_s: float, call: Callable[[], None]) -> Turned:
        handle = Turned()
        heapq.heappush(self._due, (self.now + after_s, next(self._count), handle, call))
        return handle

    def turn(self, by_s: float) -> None:
        """Let time pass; what is due happens on the way."""
        end = self.now + by_s
        while self._due and self._due[0][0] <= end:
            self.now, _, handle, call = heapq.heappop(self._due)
            if not handle.off:
                call()
        self.now = end


async def nothing_evicted(pool_id: str, need_bytes: int) -> Sequence[str]:
    """An eviction in a pool without models."""
    return ()


class Bench:
    """A pool and its reservations."""

    def __init__(self, total: int | None = 1000, **budget: int) -> None:
        self.source = ScriptedPool(total)
        self.pools = Pools(lambda _: MemoryBudget(**budget))  # pyright: ignore[reportArgumentType]  # sizes only
        self.pools.add(self.source)
        self.clock = TurnedClock()
        self.expiry = ExpiryClock(self.clock)
        self.reservations = Reservations(
            self.pools, expiry=self.expiry, clock=self.clock, call_later=self.clock.call_later
        )
        self.queue = ReservationQueue(self.pools, self.reservations, nothing_evicted, call_later=self.clock.call_later)
