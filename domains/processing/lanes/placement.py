"""Where a job may run, as a value that jobs share: a lane answers once for all jobs of one placement."""

import msgspec

from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import FrontWork


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """What decides on which lanes a job fits."""

    front: type | None
    """Its work, where the front process carries it out. None: a device does."""
    device_ids: frozenset[str] = frozenset()
    """Ids or aliases, of the job's options or of its work. Empty: any device."""
    allow_cpu: bool = False
    """The CPU may take it although it is not named, and there are other devices."""


def placement_of(job: Job) -> Placement:
    """The placement of a job; it never changes."""
    if isinstance(job.work, FrontWork):
        return Placement(front=type(job.work))
    named = job.work.device_ids or job.options.device_ids
    return Placement(front=None, device_ids=frozenset(named), allow_cpu=job.options.allow_cpu)
