"""A job: one unit of long work, as it is stored and listed."""

import hashlib

import msgspec

from domains.failure import Failure
from domains.inference.fallback import Fallback
from domains.processing.jobs.event import Checkpoint, JobProgress, JobReceipt, JobResult
from domains.processing.jobs.kinds import Work, domain_of, kind_of
from domains.processing.jobs.state import JobState
from domains.progress import Receipt, Stage
from domains.reasons import Domain


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options that every kind of job has."""

    session_id: str = ""
    priority: int = 2
    """1 low, 2 normal, 3 high, 4 critical."""
    device_ids: tuple[str, ...] = ()
    """Empty: any device."""
    node_ids: tuple[str, ...] = ()
    """Only devices of these nodes; an empty id is the server's own machine. Empty: any."""
    allow_cpu: bool = False
    """Allow the CPU although it is not named and there are other devices."""
    queue_timeout_s: float | None = None
    """Absent: no limit."""
    run_timeout_s: float | None = None
    load_timeout_s: float | None = None
    """Limit on the stage that loads the model."""
    labels: tuple[tuple[str, str], ...] = ()
    reservation_id: str = ""
    """Reservation whose memory the job uses. Empty: the job uses free memory."""
    fallback: Fallback = Fallback()
    """What may be given up when the device is out of memory."""
    keep_for_s: float | None = None
    """Retention after the job's end. Absent: the server's setting."""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of every job, whatever its work: all that can change, except the result."""

    id: str
    number: int = 0
    """Rises with each job that the state folder stores. 0: not stored yet."""
    parent_id: str = ""
    """Workflow run or batch that contains the job. Empty: none."""
    continued_id: str = ""
    """The job from whose checkpoint it continues. Empty: none."""
    request_id: str
    """The caller's idempotency key. Empty: none."""
    request_digest: str = ""
    """Digest of the rest of the request. Empty: the request has no id."""
    options: JobOptions
    detached: bool
    """False: the job is cancelled when the call that submitted it ends."""
    state: JobState
    create_time_s: float
    start_time_s: float | None = None
    """Start of the first attempt."""
    waited_s: float | None = None
    """Time before its first start, on the monotonic clock. None: it has not started, or another process created it."""
    end_time_s: float | None = None
    device_id: str = ""
    attempt: int = 0
    crashes: int = 0
    """Number of deaths of its worker process while the job ran alone."""
    suspect: bool = False
    """Its worker process died by itself once: the job runs alone from then on, to protect its neighbours."""
    last_sequence: int = 0
    checkpoint: Checkpoint | None = None
    """The newest checkpoint. None: the next attempt begins at the start."""
    spent: Receipt = Receipt()
    """Cost of the earlier attempts."""
    attempt_time_s: float | None = None
    """Start of the newest attempt."""
    ran_s: float = 0.0
    """Seconds of earlier attempts that ended in a pause or with a checkpoint."""
    pause_time_s: float | None = None
    """Time of the present pause. None: the job is not paused."""
    waiting_paused_s: float = 0.0
    """Seconds of pauses before the first attempt."""
    stage: Stage = Stage.QUEUED
    progress: JobProgress | None = None
    """The newest progress; kept in memory only, while the job runs."""
    failure: Failure | None = None
    receipt: JobReceipt | None = None
    left_device_ids: tuple[str, ...] = ()
    """Devices that it has left for others, for lack of memory."""

    @property
    def etag(self) -> str:
        """Changes with each change of state or options, and with nothing else."""
        told = msgspec.msgpack.encode((self.state, self.attempt, self.options))
        return hashlib.sha256(told).hexdigest()[:16]


class Job(JobRecord, frozen=True, kw_only=True):
    """One job at one moment. Each change makes a new value."""

    work: Work
    result: JobResult | None = None

    @property
    def kind(self) -> str:
        """Name of the kind: `generate`, `load_model`, `scan_models`."""
        return kind_of(self.work)

    @property
    def domain(self) -> Domain:
        """The domain of the work."""
        return domain_of(self.kind)


class ListedJob(JobRecord, frozen=True, kw_only=True):
    """A job as lists show it: without its work and its result."""

    kind: str
    summary: str
    """The work in one line."""
