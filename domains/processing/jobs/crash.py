"""What becomes of a job whose worker process died: it runs again, unless it is probably the cause.

A process takes all its jobs along, and which of them was at fault cannot be told. So each of them runs alone from then on,
and only a death that came while it was alone counts against it. The counts lie in the job, on disk.
"""

from domains.errors import ErrorReason
from domains.failure import Failure
from domains.processing.jobs.event import Failed, Interrupted
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job
from domains.processing.jobs.left import WorkerDeath
from domains.processing.jobs.live_job import receipt_of

MAX_CRASHES = 3
"""A job that takes its worker down this often, alone, ends FAILED."""


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
        # As the device's own record calls the death of its worker.
        root_cause=ErrorReason.DRIVER_ERROR,
        lasting=True,
        actions_taken=(f"run again, {crashes - 1} times alone", "worker restarted"),
    )
