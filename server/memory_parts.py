"""Everything about memory, constructed and wired."""

import sqlite3
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from domains.device.device import DeviceState
from domains.device.record import DeviceView
from domains.errors import ErrorReason, FailedPrecondition, Unavailable
from domains.memory.blobs.blob import BlobTier
from domains.memory.blobs.quotas import BlobLimits
from domains.memory.blobs.roots import BlobRoots
from domains.memory.blobs.store import BlobStore
from domains.memory.measure import OwnerKind
from domains.memory.pools.admission import Admission
from domains.memory.pools.budgets import Budgets
from domains.memory.pools.disk_pool import DiskPool
from domains.memory.pools.host_pool import HostPool
from domains.memory.pools.leaks import OwnerKey
from domains.memory.pools.ledger import Ledger
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaiming import Reclaiming
from domains.model.loaded import LoadedModels
from domains.processing.blob_admission import BlobPayments
from domains.processing.board import Board as Dispatcher
from domains.processing.device_pool import DevicePool, HostOwners, WorkerMemory
from domains.processing.hold_back import HoldBack
from domains.processing.job import Job
from domains.processing.job_state import ON_A_LANE
from domains.processing.jobs import Jobs
from domains.processing.memory_care import MemoryCare, pool_of
from domains.processing.model_use import loaded_ids
from domains.processing.unload import Unloading
from domains.processing.worker_blobs import WorkerBlobs
from server.settings import Settings

if TYPE_CHECKING:
    from server.announce import Announcer
    from server.device_parts import DeviceParts

_SAMPLE_S = 1.0


class MemoryParts:
    """Pools, their books, and the blobs."""

    ledger: Ledger
    reclaiming: Reclaiming
    budgets: Budgets
    admission: Admission
    hold_back: HoldBack

    def __init__(
        self,
        settings: Settings,
        database: sqlite3.Connection,
        jobs: Jobs,
        loaded: LoadedModels,
        model_bytes: Callable[[Job], int],
    ) -> None:
        """`model_bytes`: the weights that a job needs."""
        self._settings = settings
        self._model_bytes = model_bytes
        self._jobs = jobs
        self._loaded = loaded
        self.draining = False
        self.pools = Pools(leak_window_s=settings.leak_window_s)
        limits = BlobLimits(
            max_count=settings.max_blobs, max_bytes=settings.max_blob_bytes, keep_for_s=settings.keep_blobs_s
        )
        roots = BlobRoots(settings.blob_roots)
        self.blobs = BlobStore(database, settings.state / "blobs", roots=roots, limits=limits)

    def wire(self, parts: "DeviceParts", dispatcher: Dispatcher, unloading: Unloading) -> None:
        """With the devices, and with what runs jobs."""
        devices, fleet = parts.devices, parts.fleet
        self._parts = parts
        self._workers = WorkerMemory(self._loaded, fleet.worker_of)
        self._workers.listeners.append(parts.simulation.measured)
        self._host = HostOwners(self._workers, self.blobs.owners_in(BlobTier.HOST, BlobTier.PINNED_HOST))
        self.hold_back = HoldBack(self.pools, dispatcher.pump_soon)
        care = MemoryCare(
            self._jobs, devices, self._loaded, dispatcher, unloading, fleet.worker_of, self.pools, self.blobs
        )
        care.on_interrupt = self.hold_back.interrupted
        self.reclaiming = Reclaiming(self.pools, care)
        self.ledger = Ledger(self.pools, self.reclaiming.evict)
        self.budgets = Budgets(self.pools, self.ledger, self.reclaiming)
        self.admission = Admission(self.pools, self.ledger)
        self.blobs.pay_with(BlobPayments(self.admission, self.pools, self.check_open))
        self._device_blobs = WorkerBlobs(devices, fleet.worker_of)
        self.blobs.use_devices(self._device_blobs)
        pinned = self.blobs.owners_in(BlobTier.PINNED_HOST)
        self.pools.add(
            HostPool(
                fleet.pids,
                self._host.owners,
                pinned_bytes=lambda: sum(owner.live_bytes for owner in pinned()),
                aliases=("cpu", "cpu:0"),
            )
        )
        self.pools.add(DiskPool(self._settings.state, self.blobs.owners_in(BlobTier.DISK)))
        self.pools.is_starting = devices.is_expected
        self.pools.work_of = self._work_of
        self.budgets.stranded = lambda pool_id, ceiling: self._stranded(dispatcher, pool_id, ceiling)
        devices.listeners.append(self._device_changed)
        fleet.on_gone.append(self._worker_gone)

    def tell(self, announcer: "Announcer") -> None:
        """Whom to tell of what happens here by itself."""
        self.reclaiming.on_reclaimed = announcer.reclaimed
        self.ledger.tell(announcer.reservation_ended)
        self.blobs.on_expired, self.blobs.on_spoilt = announcer.blob_expired, announcer.blob_spoilt

    def begin(self) -> list[Coroutine[None, None, None]]:
        """What is to run beside the calls."""
        return [self.pools.keep_sampled(_SAMPLE_S), self._host.keep_asking(_SAMPLE_S)]

    def check_open(self, device_id: str) -> None:
        """Refuse memory where new work is not taken: DRAINING, DEVICE_DISABLED, DEVICE_LOST. Empty: no device."""
        if self.draining:
            raise Unavailable("the server is shutting down and takes no new work", ErrorReason.DRAINING)
        if not device_id:
            return
        view = self._parts.devices.there(device_id)
        if not view.settings.enabled:
            message = f"device {view.device.id} is disabled; enable it with UpdateDevice"
            raise FailedPrecondition(message, ErrorReason.DEVICE_DISABLED, device_id=view.device.id)

    def usable_bytes(self, device_id: str) -> int | None:
        """What the budget of a device's pool lets the server use; None: it is not known."""
        pool_id = pool_of(device_id)
        if pool_id not in self.pools.ids():
            return None
        state = self.pools.get(pool_id)
        return state.budget.ceiling_bytes(state.measure.total_bytes if state.measure else None)

    def _device_changed(self, view: DeviceView, before: DeviceView | None) -> None:
        """A device with memory of its own has a pool, for as long as it is there."""
        device_id = view.device.id
        if pool_of(device_id) != device_id:
            return
        known = device_id in self.pools.ids()
        if view.state is DeviceState.LOST:
            # The pool stays, so that callers hear DEVICE_LOST; what was kept there is gone.
            self.ledger.lose(device_id)
            self._worker_gone(device_id)
        elif not known and view.condition.worker_was_ready:
            self.pools.add(DevicePool(device_id, self._parts.devices, self._parts.statuses, self._workers))

    def _work_of(self, pool_id: str) -> dict[OwnerKey, float]:
        """How many jobs each owner in a pool works for: more work explains more memory."""
        work: dict[OwnerKey, float] = {}
        for job in self._jobs.unfinished():
            if job.state in ON_A_LANE and job.device_id and pool_of(job.device_id) == pool_id:
                models = [(OwnerKind.LOADED_MODEL, name) for name in loaded_ids(job, job.device_id)]
                for owner in (*models, (OwnerKind.JOB, job.id)):
                    work[owner] = work.get(owner, 0.0) + 1
        return work

    def _stranded(self, dispatcher: Dispatcher, pool_id: str, ceiling_bytes: int) -> list[str]:
        """Waiting jobs whose model alone is more than the ceiling of the only pool that they may run in."""
        return [
            job.id
            for job in dispatcher.waiting_for(lambda device_id: pool_of(device_id) == pool_id)
            if self._model_bytes(job) > ceiling_bytes
        ]

    def _worker_gone(self, device_id: str) -> None:
        self._workers.forget(device_id)
        self._device_blobs.forget(device_id)
        self.blobs.device_lost(device_id)
