"""A job: one unit of long work, as it is stored and listed."""

import hashlib

import msgspec

from domains.failure import Failure
from domains.processing.jobs.event import JobProgress, JobReceipt, JobResult
from domains.processing.jobs.kinds import Work, domain_of, kind_of
from domains.processing.jobs.state import JobState
from domains.progress import Stage
from domains.reasons import Domain


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for every kind of job."""

    session_id: str = ""
    priority: int = 2
    """1 low, 2 normal, 3 high, 4 critical."""
    device_ids: tuple[str, ...] = ()
    """Empty: any."""
    node_ids: tuple[str, ...] = ()
    """Only devices of these nodes; an empty id is the server's own machine. Empty: any."""
    allow_cpu: bool = False
    """The CPU may take it although it is not named, and there are other devices."""
    queue_timeout_s: float | None = None
    """Absent: as long as it takes."""
    run_timeout_s: float | None = None
    load_timeout_s: float | None = None
    """Of the stage that loads the model."""
    labels: tuple[tuple[str, str], ...] = ()
    reservation_id: str = ""
    """Memory that was kept for it. Empty: it takes what is free."""
    keep_for_s: float | None = None
    """How long it is kept after its end. Absent: the server's setting."""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What every job has, whatever its work: all that can change but its result."""

    id: str
    number: int = 0
    """Rises with each job that the state folder has stored. 0: not stored yet."""
    parent_id: str = ""
    """The workflow run or batch that it is a part of. Empty: none."""
    request_id: str
    """The caller's mark against double submission; empty: none was given."""
    request_digest: str = ""
    """Of all else that the request said; empty where it had no id."""
    options: JobOptions
    detached: bool
    """False: it is cancelled when the call that submitted it is left."""
    state: JobState
    create_time_s: float
    start_time_s: float | None = None
    """Start of the first attempt."""
    end_time_s: float | None = None
    device_id: str = ""
    attempt: int = 0
    crashes: int = 0
    """How often its worker process died by itself while nothing ran beside it."""
    suspect: bool = False
    """Its worker process died by itself once: from then on nothing runs beside it, so that its neighbours are safe."""
    last_sequence: int = 0
    stage: Stage = Stage.QUEUED
    progress: JobProgress | None = None
    """The newest; kept in memory only while the job runs."""
    failure: Failure | None = None
    receipt: JobReceipt | None = None

    @property
    def etag(self) -> str:
        """Differs after each change of state or options, and whatever else happens to the job leaves it as it is."""
        told = msgspec.msgpack.encode((self.state, self.attempt, self.options))
        return hashlib.sha256(told).hexdigest()[:16]


class Job(JobRecord, frozen=True, kw_only=True):
    """One job as it stands. Each change makes a new value."""

    work: Work
    result: JobResult | None = None

    @property
    def kind(self) -> str:
        """`generate`, `load_model`, `scan_models`."""
        return kind_of(self.work)

    @property
    def domain(self) -> Domain:
        """The part of the server whose work it is."""
        return domain_of(self.kind)


class ListedJob(JobRecord, frozen=True, kw_only=True):
    """A job as lists show it: without its work and its result."""

    kind: str
    summary: str
    """What it is about, in one line."""
