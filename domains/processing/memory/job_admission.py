"""Claims a job's memory before any of it is allocated, so that budgets and reservations hold."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from domains.errors import ErrorReason, NotFound, ResourceExhausted
from domains.failure import Failure
from domains.inference.fallback import FIELD_OF, Rung
from domains.inference.kept_readings import kept_readings
from domains.memory.pools.admission import Admission
from domains.memory.pools.claims import Claim
from domains.memory.pools.reclaiming import Reclaiming
from domains.model.catalogue import Catalogue
from domains.model.execution import Execution, by_layer, in_turns
from domains.model.loaded import loaded_id
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import GenerateWork, LoadWork
from domains.processing.memory.care import pool_of
from domains.processing.memory.less_room import LessRoom
from domains.processing.memory.model_use import execution_of, held_by_devices, loaded_models


def _permits(job: Job, rung: Rung) -> bool:
    fallback = job.options.fallback
    return fallback.permits(rung) and fallback.max_attempts > 0


def _advised(refusal: ResourceExhausted) -> ResourceExhausted:
    """The refusal with the permission that would have helped."""
    field = f"options.fallback.{FIELD_OF[Rung.OFFLOAD]}"
    message = f"{refusal.message}; permitting more would have helped: {field}"
    facts: dict[str, Any] = {**refusal.facts, "would_help": field}
    return ResourceExhausted(message, ErrorReason(refusal.reason), **facts)


async def claim_with_room(
    admission: Admission, reclaiming: Reclaiming, pool_id: str, need: int, reservation_id: str, consumer: str
) -> Claim:
    """Claim memory for work that cannot run otherwise; unused models go if there is no room. Raises as `Admission.admit`."""
    try:
        return await admission.admit(pool_id, need, reservation_id, consumer, keep_all=True)
    except ResourceExhausted as refusal:
        needed, available = (int(refusal.facts.get(fact, 0)) for fact in ("needed_bytes", "available_bytes"))
        await reclaiming.make_room(pool_id, needed - available)
        return await admission.admit(pool_id, need, reservation_id, consumer, keep_all=True)


class _Load:
    """A model that jobs are about to load on a device."""

    def __init__(self, loaded_id: str, size_bytes: int) -> None:
        self.id = loaded_id
        self.size_bytes = size_bytes
        """Size of its weight files."""
        self.users = 0
        """Number of jobs that need it; the last one to leave closes the claim."""
        self.lock = asyncio.Lock()
        """Held while one job claims the memory for all."""
        self.claim: Claim | None = None


class JobAdmission:
    """Claims the memory of all jobs."""

    def __init__(
        self,
        admission: Admission,
        reclaiming: Reclaiming,
        catalogue: Catalogue,
        loaded: LoadedModels,
        inherited: Callable[[Job], bool],
        need_bytes: Callable[[Model, str, Execution], int],
        read_headers: Callable[[Iterable[str]], Awaitable[None]],
    ) -> None:
        """`inherited`: whether an earlier process stored a job. `need_bytes`: forecast of the bytes that a load of the model
        adds on a device (id). `read_headers`: see `Footprints`."""
        self._admission = admission
        self._reclaiming = reclaiming
        self._catalogue = catalogue
        self._loaded = loaded
        self._loads: dict[str, _Load] = {}
        self._inherited = inherited
        self._need_bytes = need_bytes
        self._read_headers = read_headers

    @asynccontextmanager
    async def claimed(self, job: Job, device_id: str) -> AsyncGenerator[LessRoom | None]:
        """Hold a claim, until the attempt ends, on the known need of the job: the weights that it still has to load,
        those that it has for itself, and all memory reserved for it.

        Yields how its model has room, and why not as a whole, if the claim is on less than all of it;
        else None. The size of its tensors is unknown before they exist; a reservation covers them. Raises the pool's
        out-of-memory reason, BUDGET_EXCEEDED, or the fault of the reservation.
        """
        less: LessRoom | None = None
        async with AsyncExitStack() as held:
            try:
                await self._claim_all(job, device_id, execution_of(job, device_id, self._loaded), held)
            except ResourceExhausted as refusal:
                # Close the claims that were granted before the refusal.
                await held.aclose()
                fits = await self._fitting(job, device_id, refusal)
                if fits is None:
                    raise
                if not _permits(job, Rung.OFFLOAD):
                    raise _advised(refusal) from refusal
                await self._claim_all(job, device_id, fits, held)
                less = LessRoom(fits, Failure.of(refusal))
            yield less

    async def _fitting(self, job: Job, device_id: str, refusal: ResourceExhausted) -> Execution | None:
        """How the model has room: with components that take turns, else with streamed layers. None: in no way."""
        if not isinstance(job.work, LoadWork | GenerateWork) or (
            isinstance(job.work, LoadWork) and job.work.execution.offload
        ):
            return None
        execution = execution_of(job, device_id, self._loaded)
        room = int(refusal.facts.get("available_bytes", 0)) - self._own_bytes(job, device_id)
        for narrower in (in_turns(execution), by_layer(execution, room)):
            if sum(size for _, size in await self._missing(job, device_id, narrower)) <= room:
                return narrower
        return None

    async def _claim_all(self, job: Job, device_id: str, execution: Execution, held: AsyncExitStack) -> None:
        missing = await self._missing(job, device_id, execution)
        reservation_id = self._reservation_of(job) if device_id else ""
        loads = [await held.enter_async_context(self._load(name, size)) for name, size in missing]
        if await self._claim_loads(loads, device_id, reservation_id, job, held):
            reservation_id = ""
        own = self._own_bytes(job, device_id)
        if reservation_id or own:
            held.enter_context(await self._claim(pool_of(device_id), own, reservation_id, job))

    async def _claim_loads(
        self, loads: Sequence[_Load], device_id: str, reservation_id: str, job: Job, held: AsyncExitStack
    ) -> bool:
        """Claim the memory of all loads without a claim. False: all had one."""
        async with AsyncExitStack() as asking:
            for load in loads:
                await asking.enter_async_context(load.lock)
            unclaimed = [load for load in loads if load.claim is None]
            if not unclaimed:
                return False
            need = sum(load.size_bytes for load in unclaimed)
            claim = await self._claim(pool_of(device_id), need, reservation_id, job)
            for load in unclaimed:
                # The weights belong to the model and stay claimed for other jobs that wait for them.
                load.claim = claim.split(load.size_bytes, load.id)
            held.enter_context(claim)
            return True

    def _reservation_of(self, job: Job) -> str:
        """The reservation that the job can still use. Empty: the job uses free memory.

        Work of the front process runs on no device; a transfer's reservation pays for the blob that it makes.
        """
        reservation_id = job.options.reservation_id
        if reservation_id and (job.attempt or self._inherited(job)):
            # An earlier attempt used it up, or it ended with the server that granted it.
            return reservation_id if self._admission.is_held(reservation_id) else ""
        return reservation_id

    @asynccontextmanager
    async def _load(self, loaded_id: str, size_bytes: int) -> AsyncGenerator[_Load]:
        """The load of a model. Jobs that need the model at the same time share it."""
        load = self._loads.setdefault(loaded_id, _Load(loaded_id, size_bytes))
        load.users += 1
        try:
            yield load
        finally:
            load.users -= 1
            if not load.users:
                del self._loads[loaded_id]
                if load.claim:
                    load.claim.close()

    async def _claim(self, pool_id: str, need: int, reservation_id: str, job: Job) -> Claim:
        if not job.options.fallback.allow_eviction:
            return await self._admission.admit(pool_id, need, reservation_id, job.id, keep_all=True)
        return await claim_with_room(self._admission, self._reclaiming, pool_id, need, reservation_id, job.id)

    def evictable(self, device_id: str) -> bool:
        """See `Evicting`."""
        with suppress(NotFound):  # No pool is known of a device whose memory cannot be measured.
            return bool(self._reclaiming.victims(pool_of(device_id), 1, 0.0))
        return False

    async def evict(self, device_id: str, need_bytes: int) -> Sequence[str]:
        """See `Evicting`."""
        pool_id = pool_of(device_id)
        return await self._reclaiming.make_room(pool_id, need_bytes) or await self._reclaiming.make_room(pool_id, 1)

    def _own_bytes(self, job: Job, device_id: str) -> int:
        """Bytes of the models that the device holds for this job alone."""
        own = [(self._catalogue.get(one.model_id), one.execution) for one in job.work.assets if not one.loaded]
        return sum(self._need_bytes(model, device_id, execution) for model, execution in own)

    async def _missing(self, job: Job, device_id: str, execution: Execution) -> list[tuple[str, int]]:
        """Models that the job needs and the device does not hold with their present weights: their ids on the device, and
        the additional bytes that they need. The order is the same for all jobs, so that no two wait for each other."""
        loaded = [one for one in self._loaded.list() if one.device_id == device_id]
        # Components that take turns come back for each job.
        ways = {one.model_id: one.way for one in loaded if one.way.in_turns}
        held = held_by_devices(loaded, self._catalogue).get(device_id, frozenset[str]()) - ways.keys()
        # An outdated model is unloaded before the load that replaces it.
        outdated = {one.model_id: one.resident_bytes for one in loaded}
        wanted = {name: ways.get(name, execution) for name in set(loaded_models(job.work)) - held}
        # What ControlNets keep of prompts counts when the job has ended.
        kept = kept_readings(job.work.resolved) if isinstance(job.work, GenerateWork) else []
        guides = [one.model_id for some in kept for one in some]
        await self._read_headers([*guides, *(name for name, way in wanted.items() if way.reads_headers)])
        needs = {name: self._need_bytes(self._catalogue.get(name), device_id, way) for name, way in wanted.items()}
        return sorted(
            (loaded_id(name, device_id), max(0, need - outdated.get(name, 0))) for name, need in needs.items()
        )
