"""Asks for a job's memory before anything of it is allocated, so that budgets and reservations are obeyed."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from domains.errors import ResourceExhausted
from domains.memory.pools.admission import Admission
from domains.memory.pools.books import Claim
from domains.memory.pools.reclaiming import Reclaiming
from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModels
from domains.processing.job import GenerateWork, Job, LoadWork
from domains.processing.memory_care import pool_of


class JobAdmission:
    """One for all jobs."""

    def __init__(
        self, admission: Admission, reclaiming: Reclaiming, catalogue: Catalogue, loaded: LoadedModels
    ) -> None:
        self._admission = admission
        self._reclaiming = reclaiming
        self._catalogue = catalogue
        self._loaded = loaded

    @asynccontextmanager
    async def claimed(self, job: Job, device_id: str) -> AsyncGenerator[None]:
        """Hold a claim on what the job is known to need: the weights that it has still to load.

        What its tensors need is not known before they are there. Raises the pool's out-of-memory reason, BUDGET_EXCEEDED,
        or what is wrong with the reservation.
        """
        model_id, need = self._missing(job, device_id)
        reservation_id = job.options.reservation_id if job.attempt <= 1 else ""
        if not need and not reservation_id:
            yield
            return
        consumer = f"{model_id}@{device_id}" if need else job.id
        claim = await self._claim(pool_of(device_id), need, reservation_id, consumer)
        try:
            yield
        finally:
            claim.close()

    async def _claim(self, pool_id: str, need: int, reservation_id: str, consumer: str) -> Claim:
        try:
            return await self._admission.admit(pool_id, need, reservation_id, consumer)
        except ResourceExhausted as refusal:
            short = need - int(refusal.facts.get("available_bytes", 0))
            if not await self._reclaiming.evict(pool_id, short):
                raise
            return await self._admission.admit(pool_id, need, reservation_id, consumer)

    def _missing(self, job: Job, device_id: str) -> tuple[str, int]:
        """The model, and the bytes of its weight files; 0 if it is on the device already."""
        model_id, size = weights_of(job, self._catalogue)
        there = any(one.model_id == model_id and one.device_id == device_id for one in self._loaded.list())
        return model_id, 0 if there else size


def weights_of(job: Job, catalogue: Catalogue) -> tuple[str, int]:
    """The model that a job needs, and the bytes of its weight files; empty and 0: it needs none."""
    match job.work:
        case GenerateWork():
            model_id = job.work.resolved.model_id
        case LoadWork():
            model_id = job.work.model_id
        case _:
            return "", 0
    return model_id, catalogue.get(model_id).size_bytes
