"""Brings models into the RAM tier: within its budget, and with the memory claimed in the pool `host` before it is used."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from domains.amounts import compared
from domains.errors import DeviceOpsError, ErrorReason, ResourceExhausted
from domains.failure import Failure
from domains.memory.pools.admission import Admission
from domains.memory.pools.claims import Claim
from domains.memory.pools.pool import HOST
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaiming import Reclaiming
from domains.model.host_models import Brought, HostModels, KeepOn, weight_paths
from domains.model.loaded import LoadedModel, Stay, loaded_id
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from domains.processing.memory.job_admission import claim_with_room


class HostLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of a load into the RAM tier, and who asks for it."""

    stay: Stay = Stay()
    job_id: str = ""
    session_id: str = ""
    reservation_id: str = ""
    ahead: bool = False
    """No caller waits for it: it takes no memory that anything else holds."""
    keep: frozenset[str] = frozenset()
    """Models (ids) that stay, although they were only read ahead."""


class HostForecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a load into the RAM tier would take."""

    size_bytes: int
    """Bytes that it adds. 0: it is there."""
    shortfall_bytes: int
    """Bytes that the tier's budget or the pool lacks, evictions included. 0: it fits."""
    evictions: tuple[tuple[str, int], ...]
    """Loaded models that would be unloaded, with their bytes."""


class HostLoads:
    """Loads of the tier, one of a model at a time."""

    def __init__(
        self, models: HostModels, loaded: LoadedModels, admission: Admission, reclaiming: Reclaiming, pools: Pools
    ) -> None:
        self._pools = pools
        self.models = models
        self._loaded = loaded
        self._admission = admission
        self._reclaiming = reclaiming
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def load(
        self, model: Model, ask: HostLoad, tell: Callable[[int, int], None], keep_on: KeepOn
    ) -> tuple[LoadedModel, bool] | None:
        """The model in the tier, and whether it was there before. None: `keep_on` ended the load, which leaves nothing.

        Raises BUDGET_EXCEEDED or HOST_OUT_OF_MEMORY if there is no room, and what `HostModels.read` raises.
        """
        async with self._locks[model.id]:
            if (there := self.models.find(model)) is not None:
                if not ask.ahead:
                    there = self.models.take_over(there, ask.stay, job_id=ask.job_id)
                return there, True
            failure: Failure | None = None
            self._loaded.begin(model.id, "", ask.job_id, ask.session_id)
            try:
                brought = await self._read(model, ask, tell, keep_on)
                return None if brought is None else (self._put(brought, ask), False)
            except DeviceOpsError as error:
                failure = Failure.of(error)
                raise
            finally:
                self._loaded.leave(ask.job_id, failure, loaded_id(model.id, ""))

    async def _read(
        self, model: Model, ask: HostLoad, tell: Callable[[int, int], None], keep_on: KeepOn
    ) -> Brought | None:
        size = file_bytes(model)
        self._fit(model, size, ask)
        claim = await self._claim(model, size, ask)
        try:
            return await self.models.read(model, tell, keep_on)
        finally:
            claim.close()

    def _put(self, brought: Brought, ask: HostLoad) -> LoadedModel:
        before = self._loaded.find(loaded_id(brought.model.id, ""))
        stay = ask.stay
        if before is not None:
            # It replaces weights that are out of date, and stays as long as they were to stay.
            keep_alive_s = before.keep_alive_s if stay.keep_alive_s is None else stay.keep_alive_s
            stay = Stay(pinned=stay.pinned or before.pinned, keep_alive_s=keep_alive_s)
        return self.models.put(brought, stay, job_id=ask.job_id, session_id=ask.session_id, ahead=ask.ahead)

    def _fit(self, model: Model, size: int, ask: HostLoad) -> None:
        """Drop the models that must leave to keep the budget. Raises BUDGET_EXCEEDED, and drops nothing then."""
        victims = self.models.victims(size, only_ahead=ask.ahead, keep=ask.keep)
        if victims is None:
            raise self.no_room(model, size)
        for name in victims:
            self.models.drop(name)

    async def forecast(self, model: Model) -> HostForecast:
        """What a load of the model would take. Changes nothing."""
        size = 0 if self.models.find(model) else file_bytes(model)
        victims = self.models.victims(size, only_ahead=False)
        sizes = {one.id: one.size_bytes for one in self._loaded.list()}
        gone = tuple((name, sizes.get(name, 0)) for name in victims or ())
        await self._pools.measure(HOST)
        room = self._pools.room(HOST).free_bytes
        missing = 0 if room is None else size - room + self._pools.claims.outstanding_bytes(HOST)
        missing -= sum(freed for _, freed in gone)
        missing -= sum(freed for _, freed in self._reclaiming.victims(HOST, missing, 0.0)) if missing > 0 else 0
        over = 0 if victims is not None else self.models.held_bytes + size - self.models.budget_bytes()
        return HostForecast(size_bytes=size, shortfall_bytes=max(0, missing, over), evictions=gone)

    def no_room(self, model: Model, size: int) -> ResourceExhausted:
        """The refusal of a model that does not fit into the tier's budget."""
        budget = self.models.budget_bytes()
        need, all_of_it = compared(size, budget)
        held = "" if size > budget else ", and models that stay fill it"
        message = (
            f"model {model.id} of {need} does not fit into the RAM tier of {all_of_it}{held}; raise host_tier_bytes"
        )
        return ResourceExhausted(
            message, ErrorReason.BUDGET_EXCEEDED, model_id=model.id, needed_bytes=size, budget_bytes=budget
        )

    async def _claim(self, model: Model, size: int, ask: HostLoad) -> Claim:
        consumer = loaded_id(model.id, "")
        if ask.ahead:
            return await self._admission.admit(HOST, size, "", consumer)
        # A reservation ends with the server that granted it, and an earlier attempt may have used it up.
        reservation = ask.reservation_id if self._admission.is_held(ask.reservation_id) else ""
        return await claim_with_room(self._admission, self._reclaiming, HOST, size, reservation, consumer)


def file_bytes(model: Model) -> int:
    """Size of the model's weight files, as its last scan saw them."""
    paths = weight_paths(model)
    sizes: Sequence[int | None] = [model.stamp(path).size_bytes for path in paths]
    # An older version of the server stored no sizes of files.
    return model.size_bytes if None in sizes else sum(size or 0 for size in sizes)
