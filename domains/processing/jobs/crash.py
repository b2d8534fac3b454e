"""Decides how a job continues after the death of its worker process: it runs again, unless it is probably the cause.

A dead process ends all its jobs, and the one at fault is unknown. So each of them runs alone from then on, and only a
death while it runs alone counts against it. The counts are stored with the job.
"""

from domains.errors import ErrorReason
from domains.failure import Failure
from domains.processing.jobs.event import Failed, Interrupted
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job
from domains.processing.jobs.live_job import receipt_of
from domains.processing.jobs.outcome import WorkerDeath

MAX_CRASHES = 3
"""A job ends FAILED after this many deaths of its worker while it ran alone."""


def after_death(job: Job, death: WorkerDeath, now: Instant) -> Interrupted | Failed:
    """The event to record."""
    crashed = not (death.meant or death.lost)
    crashes = job.crashes + (crashed and death.alone)
    if crashed and crashes >= MAX_CRASHES:
        return Failed(failure=_failure(crashes, death), receipt=receipt_of(job, now), result=job.result)
    reason = ErrorReason.DEVICE_LOST if death.lost else ErrorReason.WORKER_RESTARTING
    return Interrupted(reason=reason, message=death.message, crashed=crashed, alone=crashed and death.alone)


def _failure(crashes: int, death: WorkerDeath) -> Failure:
    message = f"its worker process died {crashes} times while running this job and nothing else: {death.message}"
    facts = {"attempts": str(crashes), "device_id": death.device_id}
    return Failure(
        reason=ErrorReason.DEVICE_LOST,
        message=message,
        facts=facts,
        # The device's own record gives the same reason for the death of its worker.
        root_cause=ErrorReason.DRIVER_ERROR,
        lasting=True,
        actions_taken=(f"run again, {crashes - 1} times alone", "worker restarted"),
    )
