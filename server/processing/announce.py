"""Writes the changes of jobs, loaded models, memory and blobs to the event log; devices write their own."""

from domains.amounts import bytes_told
from domains.device.devices import Devices, device_lost
from domains.events import EventDomain, EventLog, Severity
from domains.failure import Failure
from domains.memory.blobs.blob import Blob, BlobState
from domains.memory.blobs.store import BlobStore
from domains.memory.pools.pool import PoolView
from domains.memory.pools.pools import Pools
from domains.memory.pools.pressure import Pressure, PressureChange
from domains.memory.pools.reclaim import ReclaimReport
from domains.memory.pools.reclaiming import Reclaiming
from domains.memory.pools.reservation import Reservation, ReservationState
from domains.memory.pools.reservations import Reservations
from domains.memory.pools.state import Upkeep
from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModel
from domains.model.loaded_models import LoadedModels
from domains.model.model import ModelState
from domains.model.scan import ScanReport
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.state import JobState
from domains.processing.memory.care import pool_of_model
from domains.processing.sessions.session import SessionView
from domains.processing.sessions.sessions import Sessions

_SEVERITY = {JobState.FAILED: Severity.ERROR, JobState.INTERRUPTED: Severity.WARNING}
_AFTER_A_FAULT = (JobState.INTERRUPTED, JobState.FAILED, JobState.CANCELLED)


class Announcer:
    """Listens to the other parts of the server and writes events."""

    def __init__(
        self,
        events: EventLog,
        devices: Devices,
        jobs: Jobs,
        loaded: LoadedModels,
        pools: Pools,
        reservations: Reservations,
        reclaiming: Reclaiming,
        blobs: BlobStore,
        catalogue: Catalogue,
        sessions: Sessions,
    ) -> None:
        self._events = events
        self._devices = devices
        self._pools = pools
        self._told: dict[str, JobState] = {}
        """By unfinished job: the state of its last event."""
        self._left: dict[str, tuple[str, int]] = {}
        """By interrupted job: the device that it ran on, and the event of the fault that interrupted it."""
        self._risen: dict[str, int] = {}
        """By pool: the event of the last rise of its pressure."""
        self._budgets: dict[str, int] = {}
        """By pool: the event of the last change of its budget."""
        self._catalogue = catalogue
        jobs.listeners.append(self._job)
        sessions.listeners.append(self._session)
        catalogue.listeners.append(self._scanned)
        loaded.listeners.append(self._model)
        pools.on_pressure.append(self._pressure)
        pools.on_budget.append(self._budget)
        reservations.on_ended.append(self._reservation_ended)
        reclaiming.on_reclaimed.append(self._reclaimed)
        blobs.listeners.on_expired.append(self._blob_expired)
        blobs.listeners.on_spoilt.append(self._blob_spoilt)

    def started(self) -> None:
        """Write the event of the server's start."""
        self._events.tell(EventDomain.PROCESSING, "system.started")

    def draining(self) -> None:
        """Write the event that the server shuts down."""
        self._events.tell(EventDomain.PROCESSING, "system.draining", message="takes no more work")

    def storage(self, failure: Failure | None) -> None:
        """Write the event that checkpoints fail, or that they succeed again (None)."""
        if failure is None:
            self._events.tell(EventDomain.PROCESSING, "system.restored", message="the state folder's disk works again")
        else:
            message = "the state folder's disk fails"
            self._events.tell(
                EventDomain.PROCESSING, "system.degraded", message=message, severity=Severity.ERROR, failure=failure
            )

    def _job(self, job: Job) -> None:
        before = self._told.get(job.id)
        if before is job.state:
            return
        self._told[job.id] = job.state
        if job.state.ended:
            del self._told[job.id]
            self._left.pop(job.id, None)
        # If a fault of the device ended the job, the event of the fault is the cause.
        cause = self._devices.events.fault(job.device_id) if job.state in _AFTER_A_FAULT else 0
        if job.state is JobState.INTERRUPTED:
            self._left[job.id] = job.device_id, cause
        elif before is JobState.INTERRUPTED and job.state is JobState.RUNNING:
            # On the same device, the cause is the device's return; on another device, the fault of the first device.
            left, fault = self._left.pop(job.id, ("", 0))
            moved = left not in ("", job.device_id) and fault
            cause = fault if moved else self._devices.events.present_state(job.device_id)
        self._events.tell(
            EventDomain.PROCESSING,
            "job.state_changed",
            job.id,
            f"{before} → {job.state}" if before else str(job.state),
            severity=_SEVERITY.get(job.state, Severity.INFO),
            cause=cause,
            failure=job.failure,
            snapshot=job,
        )

    def _session(self, view: SessionView, before: SessionView | None) -> None:
        session = view.session
        if before is None or before.session.state is not session.state:
            told = str(session.state) if before is None else f"{before.session.state} → {session.state}"
            kind = "session.state_changed"
        else:
            kind, told = "session.changed", "its settings"
        self._events.tell(EventDomain.PROCESSING, kind, session.id, told, snapshot=view)

    def _model(self, one: LoadedModel, there: bool) -> None:
        kind = "loaded_model.loaded" if there else "loaded_model.unloaded"
        cause = 0 if there else self._devices.events.fault(one.device_id) or self._upkeep(pool_of_model(one))
        self._events.tell(EventDomain.MODEL, kind, one.id, cause=cause, snapshot=one if there else None)

    def _scanned(self, report: ScanReport) -> None:
        for kind, ids in (("added", report.added), ("changed", report.changed), ("missing", report.missing)):
            for model_id in ids:
                model = self._catalogue.get(model_id)
                severity = Severity.INFO if model.state is ModelState.AVAILABLE else Severity.WARNING
                self._events.tell(EventDomain.MODEL, f"model.{kind}", model_id, model.problem, severity=severity)

    def _reclaimed(self, report: ReclaimReport) -> None:
        steps = ", ".join(f"{step.action} {step.owner.id}".strip() for step in report.steps)
        after = report.after or report.before
        cause = self._risen.get(after.id, 0)
        self._events.tell(EventDomain.MEMORY, "memory.reclaimed", after.id, steps, cause=cause, snapshot=after)

    def _reservation_ended(self, reservation: Reservation) -> None:
        lost = reservation.state is ReservationState.LOST
        cause = self._devices.events.fault(reservation.pool_id) if lost else self._upkeep(reservation.pool_id)
        self._events.tell(
            EventDomain.MEMORY,
            f"reservation.{reservation.state}",
            reservation.id,
            f"{bytes_told(reservation.size_bytes)} of pool {reservation.pool_id} that were not used",
            severity=Severity.INFO if reservation.state is ReservationState.EXPIRED else Severity.WARNING,
            cause=cause,
            failure=Failure.of(device_lost(reservation.pool_id)) if lost else None,
        )

    def _blob_expired(self, blob: Blob) -> None:
        self._events.tell(EventDomain.MEMORY, "blob.expired", blob.id, f"{bytes_told(blob.size_bytes)} in {blob.tier}")

    def _blob_spoilt(self, blob: Blob) -> None:
        self._events.tell(
            EventDomain.MEMORY,
            f"blob.{blob.state}",
            blob.id,
            severity=Severity.ERROR if blob.state is BlobState.CORRUPT else Severity.WARNING,
            cause=self._devices.events.fault(blob.device_id) if blob.device_id else 0,
            snapshot=blob,
        )

    def _upkeep(self, pool_id: str) -> int:
        """The event that caused the present clean-up of a pool; 0: there is none."""
        if pool_id not in self._pools.ids():
            return 0
        match self._pools.get(pool_id).upkeep:
            case Upkeep.NONE:
                return 0
            case Upkeep.RELIEF:
                return self._risen.get(pool_id, 0)
            case Upkeep.BUDGET:
                return self._budgets.get(pool_id, 0)

    def _budget(self, pool_id: str) -> None:
        budget = self._pools.get(pool_id).budget
        limit = "no limit" if budget.limit_bytes is None else f"at most {bytes_told(budget.limit_bytes)}"
        message = f"{limit}, {bytes_told(budget.headroom_bytes)} stay free"
        view = self._view(pool_id)
        self._budgets[pool_id] = self._events.tell(
            EventDomain.MEMORY, "memory.budget_changed", pool_id, message, snapshot=view
        )

    def _view(self, pool_id: str) -> PoolView:
        pool = self._pools.get(pool_id)
        return pool.view(pool.measure, self._pools.claims.outstanding_bytes(pool_id))

    def _pressure(self, change: PressureChange) -> None:
        rising = change.current > (change.previous or Pressure.LOW)
        sequence = self._events.tell(
            EventDomain.MEMORY,
            "memory.pressure_changed",
            change.pool_id,
            f"{(change.previous or Pressure.LOW).name} → {change.current.name}",
            severity=Severity.WARNING if rising else Severity.INFO,
            cause=self._upkeep(change.pool_id) if self._pools.get(change.pool_id).upkeep is Upkeep.BUDGET else 0,
            snapshot=self._view(change.pool_id),
        )
        if rising:
            self._risen[change.pool_id] = sequence
