"""Freeing memory through the workers and the blob store, for the clean-ups of the pools."""

import time
from collections.abc import Awaitable, Callable, Sequence

from domains.device.devices import Devices
from domains.errors import ErrorReason, InternalError, Unavailable
from domains.memory.blobs.blob import Blob, BlobTier
from domains.memory.blobs.store import BlobStore
from domains.memory.measure import MemoryOwner, OwnerKind
from domains.memory.pools.pool import DISK, HOST
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaim import IdleModel, RunningJob
from domains.model.loaded import LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.state import JobState
from domains.processing.memory.blob_admission import pool_of_blob
from domains.processing.memory.model_use import users_of
from domains.processing.workers.ask import ask
from domains.processing.workers.unload import Unloading
from domains.processing.workers.worker import Emptied, EmptyOrder, Worker, new_order_id

Interrupt = Callable[[str, ErrorReason, str], Awaitable[None]]
"""Takes a running job (id) off its device, with the reason and the message for its journal; the job waits again."""


def pool_of(device_id: str) -> str:
    """The pool of a device: its own, or `host` for the CPU."""
    return HOST if device_id == "cpu" else device_id


def pool_of_model(loaded: LoadedModel) -> str:
    """The pool in which a loaded model lies; `host` for one in the RAM tier."""
    return pool_of(loaded.device_id) or HOST


def device_of(pool_id: str) -> str | None:
    """The device of a pool. None: no device computes in it."""
    return {HOST: "cpu", DISK: None}.get(pool_id, pool_id)


class MemoryCare:
    """The `Reclaimer` of a server."""

    def __init__(
        self,
        jobs: Jobs,
        devices: Devices,
        loaded: LoadedModels,
        unloading: Unloading,
        worker_of: Callable[[str], Worker | None],
        pools: Pools,
        blobs: BlobStore,
        hold_back: Callable[[str], None],
        interrupt: Interrupt,
    ) -> None:
        """`hold_back`: starts no job in a pool (id) until memory is free there, called before a job is interrupted."""
        self._jobs = jobs
        self._devices = devices
        self._loaded = loaded
        self._unloading = unloading
        self._worker_of = worker_of
        self._pools = pools
        self._blobs = blobs
        self._hold_back = hold_back
        self._interrupt = interrupt

    async def empty_caches(self, pool_id: str) -> None:
        """Empty the caches of the allocators."""
        for worker in self._workers(pool_id):
            await ask(worker, EmptyOrder(order_id=new_order_id("empty")), Emptied)

    async def compact(self, pool_id: str) -> None:
        """Compact the memory of the allocators between two jobs."""
        for worker in self._workers(pool_id):
            await ask(worker, EmptyOrder(order_id=new_order_id("compact"), compact=True), Emptied)

    async def unload(self, loaded_model_id: str) -> None:
        """Unload a model; ILLEGAL_STATE while a job uses it."""
        await self._unloading.unload([self._loaded.get(loaded_model_id)])

    async def interrupt(self, job_id: str) -> None:
        """Take a job off its device. The job continues when there is room."""
        job = self._jobs.find(job_id)
        if job is not None and job.device_id:
            self._hold_back(pool_of(job.device_id))
        await self._interrupt(job_id, ErrorReason.PREEMPTED, "its memory was needed; it goes on when there is room")

    def idle_models(self, pool_id: str) -> Sequence[IdleModel]:
        """The models loaded in the pool, pinned and used ones marked."""
        now, jobs = time.time(), self._jobs.unfinished()
        return [
            IdleModel(
                id=one.id,
                bytes=one.resident_bytes,
                idle_s=max(0.0, now - one.last_use_time_s),
                pinned=one.stays(now),
                load_s=one.load_s,
                in_use=bool(users_of(one, jobs)),
            )
            for one in self._loaded.list()
            if pool_of_model(one) == pool_id and (one.device_id or one.locked) and one.resident_bytes
        ]

    async def collect(self, pool_id: str, blob_id: str) -> None:
        """Remove the spent blobs of a pool. INVARIANT_BROKEN: bytes could not be freed; the server tries again."""
        before = self._blobs.unfreed
        self._blobs.collect(where=lambda blob: pool_of_blob(blob) == pool_id)
        await self._blobs.freed()
        failed = {name: each.why for name, each in self._blobs.unfreed.items() if name == blob_id or name not in before}
        if failed:
            name, why = next(iter(failed.items()))
            message = f"the bytes of blob {name} could not be freed ({why}); the server goes on trying"
            raise InternalError(message, blob_ids=",".join(failed))

    def spent_blobs(self, pool_id: str) -> Sequence[MemoryOwner]:
        """All expired blobs as one owner, and each removed blob whose bytes could not be freed."""
        expired = sum(blob.size_bytes for blob in self._blobs.spent() if self._lies_in(blob, pool_id))
        unfreed = [each.blob for each in self._blobs.unfreed.values() if self._lies_in(each.blob, pool_id)]
        return [
            *([MemoryOwner(kind=OwnerKind.BLOB, live_bytes=expired, reclaimable=True)] if expired else ()),
            *(MemoryOwner(kind=OwnerKind.BLOB, id=blob.id, live_bytes=blob.size_bytes) for blob in unfreed),
        ]

    @staticmethod
    def _lies_in(blob: Blob, pool_id: str) -> bool:
        return blob.tier is not BlobTier.MAPPED and pool_of_blob(blob) == pool_id

    def running_jobs(self, pool_id: str) -> Sequence[RunningJob]:
        """The running jobs of the pool, with their memory as last measured."""
        measure = self._pools.get(pool_id).measure
        held = {owner.id: owner.live_bytes for owner in measure.owners} if measure else {}
        return [
            RunningJob(id=job.id, bytes=held.get(job.id, 0), priority=job.options.priority)
            for job in self._running()
            if pool_of(job.device_id) == pool_id
        ]

    def _running(self) -> list[Job]:
        return [job for job in self._jobs.unfinished() if job.state is JobState.RUNNING]

    def _workers(self, pool_id: str) -> list[Worker]:
        """The workers that hold memory in the pool. DEVICE_LOST or DEVICE_RECOVERING: the pool's device has no worker."""
        views = [view for view in self._devices.list() if pool_of(view.device.id) == pool_id]
        found = [worker for view in views if (worker := self._worker_of(view.device.id)) is not None]
        if pool_id != HOST:
            self._devices.there(pool_id)
            if not found:
                message = f"the worker of {pool_id} is being started, which frees its memory anyway"
                raise Unavailable(message, ErrorReason.DEVICE_RECOVERING, device_id=pool_id)
        return found
