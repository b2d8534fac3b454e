"""Describes a stored job that this server cannot read: a failed job with its reason."""

from collections.abc import Sequence

import msgspec

from domains.errors import ErrorReason
from domains.failure import Failure
from domains.journal import Entry
from domains.processing.jobs.event import END_STATE, Failed, JobEvent
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import UnreadableWork
from domains.processing.jobs.live_job import after, receipt_of
from domains.processing.jobs.rows import StoredJob, UnreadableRow, fields_of
from domains.processing.jobs.state import JobState


def given_up(row: UnreadableRow, readable: Sequence[Entry[JobEvent]]) -> StoredJob:
    """The job, ended with INVARIANT_BROKEN after the events that can still be read."""
    work = UnreadableWork(kind=row.kind, version=row.version, summary=row.summary)
    record = msgspec.structs.replace(row.record, progress=None, state=JobState.FAILED)
    job = Job(**fields_of(record), work=work)
    now = Instant.now()
    receipt = job.receipt or receipt_of(job, now)
    kept = [entry for entry in readable if type(entry.value) not in END_STATE]
    # A job that had ended before keeps its end time, and so its expiry time.
    time_s = job.end_time_s or now.unix_s
    end = Entry[JobEvent](row.ceiling + 1, time_s, Failed(failure=_failure(row), receipt=receipt))
    ended = after(job, end.value, end, JobState.FAILED)
    return StoredJob(job=ended, events=[*kept, end], ceiling=end.sequence)


def _failure(row: UnreadableRow) -> Failure:
    message = (
        f"job {row.record.id} ({row.kind}) was stored by a server whose folder had version {row.version}, and this server"
        f" cannot read it: {row.problem}; submit its work again, or delete it"
    )
    facts = {"job_id": row.record.id, "kind": row.kind, "version": str(row.version), "problem": row.problem}
    return Failure(reason=ErrorReason.INVARIANT_BROKEN, message=message, facts=facts)
