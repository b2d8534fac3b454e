"""Says which options of a stored job can be changed, and when."""

from collections.abc import Sequence

import msgspec

from domains.errors import Aborted, FailedPrecondition, InvalidRequest, Violation, excerpt
from domains.processing.jobs.job import Job, JobOptions

CHANGEABLE = {
    "priority": "priority",
    "queue_timeout": "queue_timeout_s",
    "run_timeout": "run_timeout_s",
    "labels": "labels",
    "keep_for": "keep_for_s",
}
"""By path of an update mask: the field of `JobOptions`."""
AFTER_THE_END = ("labels", "keep_for")
"""Paths of the options that can be changed after the job's end."""


def updated(job: Job, options: JobOptions, mask: Sequence[str], etag: str = "") -> JobOptions:
    """The job's options with those of the mask. Raises INVALID_FIELD, ETAG_MISMATCH, or ILLEGAL_STATE for an ended job."""
    unknown = [path for path in mask if path not in CHANGEABLE]
    if unknown or not mask:
        allowed = ", ".join(CHANGEABLE)
        text = f"{excerpt(unknown[0])!r} cannot be changed" if unknown else "names nothing to change"
        raise InvalidRequest(
            [Violation(field="update_mask", message=f"{text}; changeable: {allowed}", allowed=allowed)]
        )
    if etag and etag != job.etag:
        raise Aborted(f"job {job.id} has changed since its etag was read; read it again", job_id=job.id)
    late = [path for path in mask if path not in AFTER_THE_END]
    if job.state.ended and late:
        message = f"job {job.id} is {job.state}: {', '.join(late)} cannot be changed any more"
        raise FailedPrecondition(message, job_id=job.id, state=job.state)
    return msgspec.structs.replace(
        job.options, **{CHANGEABLE[path]: getattr(options, CHANGEABLE[path]) for path in mask}
    )
