"""Rows of jobs: their columns, and their conversion to jobs.

The record is separate from work and result: lists decode it alone, and a row whose work only another version of the
server can read still shows when and for which caller it was stored.
"""

import sqlite3
from typing import Any

import msgspec

from domains.journal import Entry
from domains.migrations import MIGRATIONS
from domains.processing.jobs.event import JobEvent, JobResult
from domains.processing.jobs.job import Job, JobOptions, JobRecord, ListedJob
from domains.processing.jobs.kinds import Work
from domains.processing.jobs.state import JobState
from domains.processing.jobs.summary import summary

_encode = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(JobRecord).decode
_decode_work = msgspec.msgpack.Decoder(Work).decode
_decode_result = msgspec.msgpack.Decoder(JobResult).decode
_decode_event = msgspec.msgpack.Decoder(JobEvent).decode
_RECORD = JobRecord.__struct_fields__

CHANGING = ("state", "device_id", "record", "result")
"""Columns that events change, in the order of `changing_of`."""
FIXED = ("id", "request_id", "session_id", "parent_id", "kind", "create_time_s", "version", "summary", "work")
"""Columns that a job keeps, in the order of `fixed_of`."""


class UnreadableRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stored job that this server cannot read."""

    record: JobRecord
    """The readable part of the record; otherwise the values of the columns."""
    kind: str
    version: int
    """Version of the state folder when the row was written."""
    summary: str
    ceiling: int
    """The highest sequence that may have been visible."""
    problem: str
    """The decoder's error message."""


class StoredJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job with its durable journal."""

    job: Job
    events: list[Entry[JobEvent]]
    ceiling: int
    """The highest sequence that may have been visible."""


def fixed_of(job: Job) -> tuple[object, ...]:
    """Values of the columns `FIXED`."""
    return (
        job.id,
        job.request_id or None,
        job.options.session_id,
        job.parent_id,
        job.kind,
        job.create_time_s,
        len(MIGRATIONS),
        summary(job.work),
        _encode(job.work),
    )


def changing_of(job: Job) -> tuple[object, ...]:
    """Values of the columns `CHANGING`."""
    record = {name: getattr(job, name) for name in _RECORD}
    return job.state, job.device_id, _encode(record), None if job.result is None else _encode(job.result)


def encoded_event(event: JobEvent) -> bytes:
    """Encode a durable event for storage."""
    return _encode(event)


def entry_of(sequence: int, time_s: float, body: bytes) -> Entry[JobEvent]:
    """Decode a stored event. Raises `msgspec.DecodeError`."""
    return Entry(sequence, time_s, _decode_event(body))


def job_of(row: sqlite3.Row) -> Job:
    """Decode a whole row. Raises `msgspec.DecodeError`."""
    result = None if row["result"] is None else _decode_result(row["result"])
    return Job(**_record_fields(row), work=_decode_work(row["work"]), result=result)


def listed_of(row: sqlite3.Row) -> ListedJob:
    """Decode the part of a row that lists show. Raises `msgspec.DecodeError`."""
    return ListedJob(**_record_fields(row), kind=row["kind"], summary=row["summary"])


def as_listed(job: Job) -> ListedJob:
    """The part of a job in memory that lists show."""
    return ListedJob(**fields_of(job), kind=job.kind, summary=summary(job.work))


def unreadable(row: sqlite3.Row, problem: Exception) -> UnreadableRow:
    """The values of a row's columns, where the rest cannot be read."""
    try:
        record = JobRecord(**_record_fields(row))
    except msgspec.DecodeError:
        record = JobRecord(
            id=row["id"],
            number=row["number"],
            parent_id=row["parent_id"],
            request_id=row["request_id"] or "",
            options=JobOptions(session_id=row["session_id"]),
            detached=True,
            state=JobState.FAILED,
            create_time_s=row["create_time_s"],
            device_id=row["device_id"],
        )
    return UnreadableRow(
        record=record,
        kind=row["kind"],
        version=row["version"],
        summary=row["summary"],
        ceiling=row["sequence_ceiling"],
        problem=str(problem),
    )


def _record_fields(row: sqlite3.Row) -> dict[str, Any]:
    # The database assigns the number when it stores the row.
    return fields_of(_decode_record(row["record"])) | {"number": row["number"]}


def fields_of(record: JobRecord) -> dict[str, Any]:
    """The fields of a job that its record holds, by name."""
    return {name: getattr(record, name) for name in _RECORD}
