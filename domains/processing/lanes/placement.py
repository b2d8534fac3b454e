"""Where a job may run, as a value that jobs share: a lane is tested once for all jobs of one placement."""

import msgspec

from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import FrontWork


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a job that decide which lanes it fits."""

    front: type | None
    """Type of the front work. None: a device carries out the job."""
    device_ids: frozenset[str] = frozenset()
    """Ids or aliases that the job's options or its work name. Empty: any device."""
    allow_cpu: bool = False
    """Allow the CPU although it is not named and there are other devices."""


def placement_of(job: Job) -> Placement:
    """The placement of a job; it never changes."""
    if isinstance(job.work, FrontWork):
        return Placement(front=type(job.work))
    named = job.work.device_ids or job.options.device_ids
    return Placement(front=None, device_ids=frozenset(named), allow_cpu=job.options.allow_cpu)
