"""What was left of the work when an attempt was over. `ending` makes the job's next event of it."""

import msgspec

from domains.failure import Failure
from domains.inference.outcome import RunStopped
from domains.processing.jobs.event import JobResult
from domains.progress import Receipt, Stage, StageTiming


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """All of it was carried out."""

    result: JobResult
    receipt: Receipt = Receipt()

    @classmethod
    def in_one_stage(cls, result: JobResult, stage: Stage, wall_s: float) -> "Done":
        """Work of the front process."""
        return cls(result=result, receipt=Receipt(timings=(StageTiming(stage=stage, wall_s=wall_s),)))


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """It ended with an error."""

    failure: Failure
    receipt: Receipt = Receipt()
    result: JobResult | None = None
    """What was made before. None: what the job has."""


class Halted(msgspec.Struct, frozen=True, kw_only=True):
    """It was stopped at a safe point."""

    proof: RunStopped | None = None
    """The worker's. None: no worker had anything of it."""
    result: JobResult | None = None
    """What was made before. None: what the job has."""


class WorkerDeath(msgspec.Struct, frozen=True, kw_only=True):
    """Its worker process ended under it."""

    device_id: str
    message: str
    meant: bool
    """The process was ended on purpose: a reset, a shutdown, a driver that another job has broken."""
    lost: bool
    """Its device went away."""
    alone: bool
    """Nothing ran beside the job in this attempt."""


Left = Done | Broken | Halted | WorkerDeath
