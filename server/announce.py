"""Tells the log of changes what happens to jobs, loaded models and pools; devices tell it themselves."""

from domains.device.devices import Devices, device_lost
from domains.events import EventDomain, EventLog, Severity
from domains.failure import Failure
from domains.memory.pools.pools import Pools
from domains.memory.pools.pressure import Pressure, PressureChange
from domains.memory.pools.reclaim import ReclaimReport
from domains.memory.pools.reservation import Reservation, ReservationState
from domains.model.loaded import LoadedModel, LoadedModels
from domains.processing.job import Job
from domains.processing.job_state import JobState
from domains.processing.jobs import Jobs

_SEVERITY = {JobState.FAILED: Severity.ERROR, JobState.INTERRUPTED: Severity.WARNING}
_AFTER_A_FAULT = (JobState.INTERRUPTED, JobState.FAILED, JobState.CANCELLED)
_HELD, _LOST = ReservationState.HELD, ReservationState.LOST


class Announcer:
    """Listens, and tells."""

    def __init__(self, events: EventLog, devices: Devices, jobs: Jobs, loaded: LoadedModels, pools: Pools) -> None:
        self._events = events
        self._devices = devices
        self._pools = pools
        self._told: dict[str, JobState] = {}
        """By unfinished job: the state that was told last."""
        self._left: dict[str, tuple[str, int]] = {}
        """By interrupted job: the device that it left, and the fault that made it leave."""
        jobs.listeners.append(self._job)
        loaded.listeners.append(self._model)
        pools.on_pressure = self._pressure

    def started(self) -> None:
        """The server is there."""
        self._events.tell(EventDomain.PROCESSING, "system.started")

    def draining(self) -> None:
        """The server shuts down."""
        self._events.tell(EventDomain.PROCESSING, "system.draining", message="takes no more work")

    def _job(self, job: Job) -> None:
        before = self._told.get(job.id)
        if before is job.state:
            return
        self._told[job.id] = job.state
        if job.state.ended:
            del self._told[job.id]
            self._left.pop(job.id, None)
        # What a fault of its device did to a job names the fault.
        cause = self._devices.events.fault(job.device_id) if job.state in _AFTER_A_FAULT else 0
        if job.state is JobState.INTERRUPTED:
            self._left[job.id] = job.device_id, cause
        elif before is JobState.INTERRUPTED and job.state is JobState.RUNNING:
            # It goes on because its device works again; elsewhere: because that one does not.
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

    def _model(self, one: LoadedModel, there: bool) -> None:
        kind = "loaded_model.loaded" if there else "loaded_model.unloaded"
        cause = 0 if there else self._devices.events.fault(one.device_id)
        self._events.tell(EventDomain.MODEL, kind, one.id, cause=cause, snapshot=one if there else None)

    def reservation_lost(self, reservation: Reservation, device_id: str) -> None:
        """What was kept free on a device is gone with it."""
        failure = Failure.of(device_lost(device_id))
        self._events.tell(
            EventDomain.MEMORY,
            "reservation.state_changed",
            reservation.id,
            f"{_HELD} → {_LOST}: {failure.message}",
            severity=Severity.WARNING,
            cause=self._devices.events.fault(device_id),
            failure=failure,
        )

    def reclaimed(self, report: ReclaimReport) -> None:
        """The server has cleaned a pool by itself."""
        steps = ", ".join(f"{step.action} {step.owner.id}".strip() for step in report.steps)
        after = report.after or report.before
        self._events.tell(EventDomain.MEMORY, "memory.reclaimed", after.id, steps, snapshot=after)

    def _pressure(self, change: PressureChange) -> None:
        rising = change.current > (change.previous or Pressure.LOW)
        pool = self._pools.get(change.pool_id)
        self._events.tell(
            EventDomain.MEMORY,
            "memory.pressure_changed",
            change.pool_id,
            f"{(change.previous or Pressure.LOW).name} → {change.current.name}",
            severity=Severity.WARNING if rising else Severity.INFO,
            snapshot=pool.view(pool.measure, self._pools.books.promised_bytes(change.pool_id)),
        )
