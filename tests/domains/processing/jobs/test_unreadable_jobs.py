"""A stored job that this server cannot read has failed, and keeps nobody from the others."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection

import msgspec
import pytest

from domains.errors import ErrorReason, FailedPrecondition, NotFound
from domains.migrations import MIGRATIONS
from domains.processing.jobs.event import Failed, Started
from domains.processing.jobs.filter import JobFilter
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ScanWork, UnreadableWork
from domains.processing.jobs.state import JobState
from domains.processing.jobs.store import JobStore
from domains.requests import Asked
from domains.storage import open_database

KEEP_S = 3600.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Connection]:
    with closing(open_database(tmp_path)) as opened:
        yield opened


def opened(database: Connection, folder: Path) -> Jobs:
    """The jobs of a server that has just started on the folder."""
    return Jobs(JobStore(database, folder), KEEP_S)


def renamed_field(database: Connection, job_id: str) -> None:
    """What a server with other fields wrote: an object where this one wants its own."""
    work = msgspec.msgpack.encode({"type": "generate", "asked": {"prompt": "a red apple"}, "scheduler": "euler"})
    database.execute("UPDATE jobs SET kind = 'generate', work = ? WHERE id = ?", (work, job_id))


def unknown_kind(database: Connection, job_id: str) -> None:
    work = msgspec.msgpack.encode({"type": "hologram"})
    database.execute("UPDATE jobs SET kind = 'hologram', work = ? WHERE id = ?", (work, job_id))


def damaged_record(database: Connection, job_id: str) -> None:
    database.execute("UPDATE jobs SET record = x'c1' WHERE id = ?", (job_id,))


def damaged_event(database: Connection, job_id: str) -> None:
    database.execute("UPDATE events SET body = x'c1' WHERE job_id = ? AND sequence = 1", (job_id,))


DAMAGES = [renamed_field, unknown_kind, damaged_record, damaged_event]
Damage = Callable[[Connection, str], None]


def check_failed(jobs: Jobs, job: Job, kind: str) -> None:
    """GetJob, ListJobs and WatchJob tell the same end."""
    told = jobs.get(job.id)
    assert isinstance(told.work, UnreadableWork)
    assert (told.state, told.kind, told.number) == (JobState.FAILED, kind, job.number)
    assert told.failure is not None
    assert told.failure.reason is ErrorReason.INVARIANT_BROKEN
    assert (told.failure.facts["kind"], told.failure.facts["version"]) == (kind, str(len(MIGRATIONS)))
    assert told.end_time_s is not None
    (listed,) = (one for one in jobs.page(JobFilter(), None, 100)[0] if one.id == job.id)
    assert (listed.state, listed.failure) == (JobState.FAILED, told.failure)
    journal = jobs.live(job.id).journal
    end = journal.after(0)[-1]
    assert isinstance(end.value, Failed)
    assert (end.value.failure, end.sequence, journal.closed) == (told.failure, told.last_sequence, True)


def kind_of(database: Connection, job: Job) -> str:
    (kind,) = database.execute("SELECT kind FROM jobs WHERE id = ?", (job.id,)).fetchone()
    return kind


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_unfinished_job_that_cannot_be_read_fails_at_the_start_and_the_others_go_on(
    database: Connection, tmp_path: Path, damage: Damage
) -> None:
    before = opened(database, tmp_path)
    unreadable, other = (before.submit(ScanWork(), JobOptions())[0] for _ in range(2))
    before.record(unreadable.id, Started(device_id="cpu", attempt=1))
    seen = before.live(unreadable.id).journal.last_sequence
    damage(database, unreadable.id)
    jobs, told = opened(database, tmp_path), list[tuple[str, JobState]]()
    jobs.listeners.append(lambda job: told.append((job.id, job.state)))
    assert [job.id for job in jobs.recover()] == [other.id]
    assert told == [(unreadable.id, JobState.FAILED), (other.id, JobState.QUEUED)]
    check_failed(jobs, unreadable, kind_of(database, unreadable))
    assert jobs.get(unreadable.id).last_sequence > seen
    # It has ended for good: the next start finds nothing to do, and tells the same.
    again = opened(database, tmp_path)
    assert [job.id for job in again.recover()] == [other.id]
    assert again.get(unreadable.id) == jobs.get(unreadable.id)


@pytest.mark.parametrize("look", ["list", "get", "find"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_an_ended_job_that_cannot_be_read_is_told_as_failed_and_can_be_deleted(
    database: Connection, tmp_path: Path, damage: Damage, look: str
) -> None:
    before = opened(database, tmp_path)
    job, other = (before.submit(ScanWork(), JobOptions(session_id="s"), Asked(request_id=r))[0] for r in ("a", "b"))
    for one in (job, other):
        before.cancel(one.id)
    damage(database, job.id)
    jobs = opened(database, tmp_path)
    assert jobs.recover() == []
    if look == "list":
        assert [one.id for one in jobs.page(JobFilter(), None, 10)[0]] == [other.id, job.id]
    elif look == "find":
        assert jobs.find(job.id) is not None
    check_failed(jobs, job, kind_of(database, job))
    told = jobs.get(job.id)
    assert (told.options.session_id, told.request_id) == ("s", "a")
    with pytest.raises(FailedPrecondition):
        jobs.cancel(job.id)
    assert database.execute("SELECT expire_time_s FROM jobs WHERE id = ?", (job.id,)).fetchone()[0] is not None
    jobs.delete(job.id)
    with pytest.raises(NotFound):
        jobs.get(job.id)
    assert [one.id for one in jobs.page(JobFilter(), None, 10)[0]] == [other.id]
