"""The outcome of an attempt's work. `ending` derives the job's next event from it."""

import msgspec

from domains.failure import Failure
from domains.inference.outcome import RunStopped
from domains.processing.jobs.event import Checkpoint, JobResult
from domains.progress import Receipt, Stage, StageTiming


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The work was completed."""

    result: JobResult
    receipt: Receipt = Receipt()

    @classmethod
    def in_one_stage(cls, result: JobResult, stage: Stage, wall_s: float) -> "Done":
        """The outcome of front work with one stage."""
        return cls(result=result, receipt=Receipt(timings=(StageTiming(stage=stage, wall_s=wall_s),)))


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """The work ended with an error."""

    failure: Failure
    receipt: Receipt = Receipt()
    result: JobResult | None = None
    """Partial result. None: the job's own result stays."""
    checkpoint: Checkpoint | None = None
    """The progress that the worker kept. None: it kept none."""


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """The device was out of memory, and the job continues on another one."""

    device_id: str
    """The device that it leaves."""
    failure: Failure
    receipt: Receipt = Receipt()
    checkpoint: Checkpoint | None = None
    """The progress that the worker kept. None: it kept none."""


class Halted(msgspec.Struct, frozen=True, kw_only=True):
    """The work stopped at a safe point."""

    proof: RunStopped | None = None
    """The worker's proof. None: no worker had the order."""
    checkpoint: Checkpoint | None = None
    """The progress that the worker kept. None: it kept none."""
    result: JobResult | None = None
    """Partial result. None: the job's own result stays."""


class WorkerDeath(msgspec.Struct, frozen=True, kw_only=True):
    """The worker process ended during the work."""

    device_id: str
    message: str
    meant: bool
    """The server ended the process: for a reset, a shutdown, or another job's driver error."""
    lost: bool
    """The device was lost."""
    alone: bool
    """The job ran alone in this attempt."""


Outcome = Done | Broken | Moved | Halted | WorkerDeath
