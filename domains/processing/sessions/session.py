"""The values of a session."""

import hashlib
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from domains.labels import Labels, has_all
from domains.processing.jobs.event import JobReceipt
from domains.processing.jobs.job import Job
from domains.processing.jobs.state import JobState


class SessionState(StrEnum):
    """The state of a session."""

    OPEN = "open"
    PAUSED = "paused"
    """It takes jobs and starts none."""
    CLOSING = "closing"
    """It takes no new jobs; its jobs run to their end or are cancelled, as `CloseAction` says."""
    CLOSED = "closed"


class CloseAction(StrEnum):
    """What the server does with the jobs of a session that closes."""

    FINISH = "finish"
    """All run to their end."""
    CANCEL_PENDING = "cancel_pending"
    """Running jobs run to their end; the others are cancelled."""
    CANCEL_ALL = "cancel_all"


class SessionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a session may have at a time. 0: no limit of its own."""

    max_queued_jobs: int = 0
    max_running_jobs: int = 0
    max_device_bytes: int = 0
    """Measured device memory of its jobs, without weights."""
    max_result_bytes: int = 0


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller decides about a session."""

    display_name: str = ""
    weight: float | None = None
    """Its share of a busy device. None: 1."""
    limits: SessionLimits | None = None
    """None: no limits of its own."""
    labels: Labels = ()
    idle_timeout_s: float | None = None
    """It closes by itself after so long without a job, a watcher and a call. None: never."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session as it is stored. Each change makes a new value."""

    id: str
    number: int = 0
    """Rises with each session that the state folder stores. 0: not stored yet."""
    request_id: str = ""
    """The caller's idempotency key. Empty: none."""
    request_digest: str = ""
    state: SessionState = SessionState.OPEN
    settings: SessionSettings = SessionSettings()
    cause: str = ""
    """The caller's reason for the present pause, or for the last resumption."""
    create_time_s: float
    update_time_s: float
    """Time of the last change by a call."""
    close_time_s: float | None = None
    """None: it has not ended."""

    @property
    def etag(self) -> str:
        """Changes with each change of state or settings, and with nothing else."""
        return hashlib.sha256(msgspec.msgpack.encode((self.state, self.settings))).hexdigest()[:16]

    @property
    def weight(self) -> float:
        """Its share of a busy device against other sessions."""
        return 1.0 if self.settings.weight is None else self.settings.weight

    @property
    def limits(self) -> SessionLimits:
        """Its limits."""
        return self.settings.limits or SessionLimits()


class SessionTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of a session's ended jobs, including those that were deleted since."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    device_s: float | None = None
    """None: no device measured it."""
    run_s: float = 0.0
    queue_s: float = 0.0
    steps: int = 0
    images: int = 0

    def with_job(self, state: JobState | None, receipt: JobReceipt | None, images: int) -> "SessionTotals":
        """The sum with one more job. `state` None: the job has not ended."""
        device = [each for each in (self.device_s, *_device_s(receipt)) if each is not None]
        return SessionTotals(
            succeeded=self.succeeded + (state is JobState.SUCCEEDED),
            failed=self.failed + (state is JobState.FAILED),
            cancelled=self.cancelled + (state is JobState.CANCELLED),
            device_s=sum(device) if device else None,
            run_s=self.run_s + (receipt.run_s if receipt else 0.0),
            queue_s=self.queue_s + (receipt.queue_s if receipt else 0.0),
            steps=self.steps + (receipt.work.steps_executed if receipt else 0),
            images=self.images + images,
        )


def _device_s(receipt: JobReceipt | None) -> list[float | None]:
    return [timing.device_s for timing in receipt.work.timings] if receipt else []


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """A session at one moment, with its jobs and what it has used."""

    session: Session
    queued: int = 0
    running: int = 0
    paused: int = 0
    totals: SessionTotals = SessionTotals()
    """With the jobs that have not ended."""
    device_bytes: int | None = None
    """None: it cannot be measured."""
    result_bytes: int = 0
    last_sequence: int = 0


COUNTED_AS: Mapping[JobState, str] = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "running",
    JobState.PAUSING: "running",
    JobState.CANCELLING: "running",
    JobState.PAUSED: "paused",
    JobState.INTERRUPTED: "paused",
}
"""By state of a job that has not ended: the field of `SessionView` that counts it."""


class SessionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Every condition that is set must hold."""

    states: tuple[SessionState, ...] | None = None
    """The session has one of these states. None: any state."""
    labels: Labels = ()
    """The session has all of them. An empty value matches any value of its key."""

    def accepts(self, session: Session) -> bool:
        """Whether the filter accepts the session."""
        return (self.states is None or session.state in self.states) and has_all(self.labels, session.settings.labels)


def images_made(job: Job) -> int:
    """Number of pictures that a job has made."""
    return len(getattr(job.result, "images", ()))
