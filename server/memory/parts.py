"""Builds everything about memory, in the order of construction."""

import sqlite3
from collections.abc import Callable, Coroutine

from domains.clock import ExpiryClock
from domains.device.device import DeviceState
from domains.device.record import DeviceView
from domains.draining import Draining
from domains.errors import ErrorReason, FailedPrecondition
from domains.memory.blobs.blob import BlobTier
from domains.memory.blobs.quotas import BlobLimits
from domains.memory.blobs.roots import BlobRoots
from domains.memory.blobs.store import BlobStore
from domains.memory.measure import MemoryMeasure, OwnerKind
from domains.memory.pools.admission import Admission
from domains.memory.pools.budgets import Budgets
from domains.memory.pools.disk_pool import DiskPool
from domains.memory.pools.host_pool import HostPool
from domains.memory.pools.leaks import OwnerKey
from domains.memory.pools.pools import Pools
from domains.memory.pools.reclaiming import Reclaiming
from domains.memory.pools.reservation_queue import ReservationQueue
from domains.memory.pools.reservations import Reservations
from domains.model.host_models import HostModels
from domains.model.loaded_models import LoadedModels
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.state import ON_A_LANE
from domains.processing.lanes.board import Board
from domains.processing.memory.blob_admission import PoolBlobAdmission
from domains.processing.memory.care import MemoryCare, pool_of
from domains.processing.memory.device_pool import DevicePool, HostOwners, WorkerMemory
from domains.processing.memory.hold_back import HoldBack
from domains.processing.memory.last_measures import LastMeasures
from domains.processing.memory.model_use import loaded_ids
from domains.processing.sessions.sessions import Sessions
from domains.processing.workers.blobs import WorkerBlobs
from domains.processing.workers.unload import Unloading
from server.device.parts import DeviceParts
from server.settings import Settings
from server.users import user_ids

_SAMPLE_S = 1.0


class MemoryParts:
    """The pools with their claims and reservations, and the blobs."""

    def __init__(
        self,
        settings: Settings,
        database: sqlite3.Connection,
        jobs: Jobs,
        sessions: Sessions,
        loaded: LoadedModels,
        host_models: HostModels,
        model_bytes: Callable[[Job], int],
        parts: DeviceParts,
        unloading: Unloading,
        board: Board,
        draining: Draining,
        expiry: ExpiryClock,
        measures: LastMeasures,
    ) -> None:
        """`model_bytes`: the size of the weights that a job needs."""
        self._parts = parts
        worker_of = parts.fleet.worker_of
        self._jobs = jobs
        self._sessions = sessions
        self._model_bytes = model_bytes
        self._board = board
        self._draining = draining
        self.pools = Pools(
            why_absent=parts.devices.never_ready, work_of=self._work_of, leak_window_s=settings.leak_window_s
        )
        self.reservations = Reservations(self.pools, expiry=expiry)
        self.admission = Admission(self.pools, self.reservations)
        self._device_blobs = WorkerBlobs(parts.devices, worker_of)
        self.blobs = BlobStore(
            database,
            settings.state / "blobs",
            roots=BlobRoots(settings.blob_roots, user_ids(settings.blob_owners)),
            limits=BlobLimits(
                max_count=settings.max_blobs, max_bytes=settings.max_blob_bytes, keep_for_s=settings.keep_blobs_s
            ),
            admission=PoolBlobAdmission(self.admission, self.pools, self.check_open, sessions.check_open),
            device_memory=self._device_blobs,
            expiry=expiry,
        )
        self._workers = WorkerMemory(loaded, worker_of, self._measured, self._session_of, measures)
        host_blobs = self.blobs.owners_in(BlobTier.HOST, BlobTier.PINNED_HOST)
        self._host = HostOwners(self._workers, lambda: [*host_blobs(), *host_models.owners()])
        self.hold_back = HoldBack(self.pools, board.room.tell_soon)
        care = MemoryCare(
            jobs,
            parts.devices,
            loaded,
            unloading,
            worker_of,
            self.pools,
            self.blobs,
            self.hold_back.interrupted,
            board.lanes.preempt,
        )
        self.reclaiming = Reclaiming(self.pools, care)
        self.reservation_queue = ReservationQueue(self.pools, self.reservations, self.reclaiming.evict)
        self.budgets = Budgets(self.pools, self.reservations, self.reclaiming, self._stranded)
        pinned = self.blobs.owners_in(BlobTier.PINNED_HOST)
        self.pools.add(
            HostPool(
                parts.fleet.pids,
                self._host.owners,
                pinned_bytes=lambda: sum(owner.live_bytes for owner in pinned()) + host_models.locked_bytes,
                aliases=("cpu", "cpu:0"),
            )
        )
        self.pools.add(DiskPool(settings.state, self.blobs.owners_in(BlobTier.DISK)))
        parts.devices.listeners.append(self._device_changed)
        parts.fleet.on_gone.append(self._worker_gone)

    def begin(self) -> list[Coroutine[None, None, None]]:
        """Returns the background tasks of the domain."""
        return [self.pools.keep_sampled(_SAMPLE_S), self._host.keep_asking(_SAMPLE_S)]

    def check_open(self, device_id: str) -> None:
        """DRAINING, DEVICE_DISABLED or DEVICE_LOST where no new work is taken. An empty id: no device."""
        self._draining.check()
        if not device_id:
            return
        view = self._parts.devices.there(device_id)
        if not view.settings.enabled:
            message = f"device {view.device.id} is disabled; enable it with UpdateDevice for {view.device.id}"
            raise FailedPrecondition(message, ErrorReason.DEVICE_DISABLED, device_id=view.device.id)

    def usable_bytes(self, device_id: str) -> int | None:
        """The most that the server may use of a device's pool. None: unknown."""
        pool_id = pool_of(device_id)
        if pool_id not in self.pools.ids():
            return None
        state = self.pools.get(pool_id)
        return state.budget.ceiling_bytes(state.measure.total_bytes if state.measure else None)

    def _device_changed(self, view: DeviceView, before: DeviceView | None) -> None:
        """Add a pool for a device with memory of its own."""
        device_id = view.device.id
        if pool_of(device_id) != device_id:
            return
        known = device_id in self.pools.ids()
        if view.state is DeviceState.LOST:
            # The pool stays, so that callers get DEVICE_LOST; its reservations and blobs end.
            self.reservations.lose(device_id)
            self._worker_gone(device_id)
        elif not known and view.condition.worker_was_ready:
            self.pools.add(DevicePool(device_id, self._parts.devices, self._parts.statuses, self._workers))

    def _work_of(self, pool_id: str) -> dict[OwnerKey, float]:
        """The number of running jobs of each owner in a pool: more work explains more memory."""
        work: dict[OwnerKey, float] = {}
        for job in self._jobs.unfinished():
            if job.state in ON_A_LANE and job.device_id and pool_of(job.device_id) == pool_id:
                models = [(OwnerKind.LOADED_MODEL, name) for name in loaded_ids(job, job.device_id)]
                for owner in (*models, (OwnerKind.JOB, job.id)):
                    work[owner] = work.get(owner, 0.0) + 1
        return work

    def _measured(self, device_id: str, measure: MemoryMeasure | None) -> None:
        self._parts.simulation.measured(device_id, measure)
        self._sessions.memory_measured()

    def _session_of(self, job_id: str) -> str:
        job = self._jobs.find(job_id)
        return "" if job is None else job.options.session_id

    def _stranded(self, pool_id: str, ceiling_bytes: int) -> list[str]:
        """Waiting jobs whose model alone exceeds the ceiling of the only pool that they may run in."""
        return [
            job.id
            for job in self._board.backlog.waiting_for(lambda device_id: pool_of(device_id) == pool_id)
            if self._model_bytes(job) > ceiling_bytes
        ]

    def _worker_gone(self, device_id: str) -> None:
        """The worker of a device has ended, and its memory is free."""
        self._workers.forget(device_id)
        self._device_blobs.forget(device_id)
        self.blobs.device_lost(device_id)
