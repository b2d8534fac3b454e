"""Lists of jobs: the database finds what the filter accepts, a bounded number of rows at a time."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domains.errors import ErrorReason, ResourceExhausted
from domains.labels import MAX_LABELS
from domains.model.scan import ScanReport
from domains.processing.jobs import filter as job_filter
from domains.processing.jobs import store as job_store
from domains.processing.jobs.event import ScanResult, Started, Succeeded
from domains.processing.jobs.filter import JobFilter
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import BenchmarkWork, ScanWork
from domains.processing.jobs.live_job import receipt_of
from domains.processing.jobs.rows import as_listed
from domains.processing.jobs.state import JobState
from domains.processing.jobs.store import JobStore
from domains.requests import Asked
from domains.storage import open_database
from tests.domains.memory.scratch import scratch_folder

SESSIONS, DEVICES, PARENTS = ("", "s", "t"), ("", "cpu", "gpu"), ("", "batch")
LABELS = (("k", "v"), ("k", "w"), ("l", "v"))

made = st.fixed_dictionaries(
    {
        "session": st.sampled_from(SESSIONS),
        "labels": st.sets(st.sampled_from(LABELS[1:])).map(tuple),
        "device": st.sampled_from(DEVICES),
        "parent": st.sampled_from(PARENTS),
        "benchmark": st.booleans(),
        "cancelled": st.booleans(),
    }
)
wanted = st.builds(
    JobFilter,
    states=st.none() | st.lists(st.sampled_from([JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED])).map(tuple),
    kinds=st.none() | st.lists(st.sampled_from(["scan_models", "benchmark_device"])).map(tuple),
    session_id=st.sampled_from(SESSIONS),
    labels=st.lists(st.sampled_from([*LABELS, ("k", "")]), max_size=2, unique=True).map(tuple),
    device_id=st.sampled_from(DEVICES),
    request_id=st.sampled_from(["", "", "r1"]),
    parent_id=st.sampled_from([None, *PARENTS]),
    created_from_s=st.none() | st.just(3.0),
    created_before_s=st.none() | st.just(6.0),
)


def add(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, number: int, what: dict[str, object]) -> None:
    work = BenchmarkWork(device_id="cpu", suites=()) if what["benchmark"] else ScanWork()
    options = JobOptions(session_id=str(what["session"]), labels=what["labels"])  # pyright: ignore[reportArgumentType]  # as drawn
    job = Jobs.draft(work, options, Asked(request_id=f"r{number}"))
    job = msgspec.structs.replace(job, parent_id=str(what["parent"]), create_time_s=float(number))

    def draft(*_: object, **__: object) -> Job:
        return job

    monkeypatch.setattr(jobs, "draft", draft)
    jobs.submit(work, options)
    if what["device"]:
        jobs.record(job.id, Started(device_id=str(what["device"]), attempt=1))
    if what["cancelled"]:
        jobs.cancel(job.id)


def pages(jobs: Jobs, wanted: JobFilter, limit: int) -> list[str]:
    """Ids over all pages."""
    found, place = list[str](), None
    while True:
        page, after = jobs.page(wanted, place, limit)
        assert len(page) <= limit
        found += [job.id for job in page]
        if after is None:
            return found
        assert place is None or after < place
        place = after


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.lists(made, max_size=12), wanted, st.integers(1, 5), st.sampled_from([2, 5, 1000]))
def test_the_pages_have_what_the_filter_accepts_and_nothing_twice(
    given_jobs: list[dict[str, object]], wanted: JobFilter, limit: int, looked: int
) -> None:
    with scratch_folder() as folder, closing(open_database(folder)) as database, pytest.MonkeyPatch.context() as patch:
        jobs = Jobs(JobStore(database, folder), keep_s=3600)
        for number, what in enumerate(given_jobs):
            add(jobs, patch, number, what)
        patch.setattr(job_filter, "LOOKED", looked)
        patch.setattr(job_store, "LOOKED", looked)
        everything = [jobs.get(job_id) for job_id in pages(jobs, JobFilter(), limit)]
        assert len(everything) == len(given_jobs)
        assert [job.number for job in everything] == sorted((job.number for job in everything), reverse=True)
        assert pages(jobs, wanted, limit) == [job.id for job in everything if wanted.accepts(as_listed(job))]


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with closing(open_database(tmp_path)) as database:
        yield Jobs(JobStore(database, tmp_path), keep_s=3600)


def test_a_call_that_has_looked_long_enough_gives_an_empty_page_and_a_place(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (job_filter, job_store):
        monkeypatch.setattr(module, "LOOKED", 4)
    oldest = jobs.submit(ScanWork(), JobOptions(labels=(("k", "v"),)))[0]
    newer = [jobs.submit(ScanWork(), JobOptions())[0] for _ in range(6)]
    wanted = JobFilter(labels=(("k", ""),))
    page, place = jobs.page(wanted, None, 10)
    assert (page, place) == ([], newer[2].number)
    page, place = jobs.page(wanted, place, 10)
    assert ([job.id for job in page], place) == ([oldest.id], None)


def test_more_labels_than_a_job_can_have_are_found_in_none(jobs: Jobs) -> None:
    most = tuple((f"key-{number}", "v") for number in range(MAX_LABELS))
    job = jobs.submit(ScanWork(), JobOptions(labels=most))[0]
    any_value = tuple((key, "") for key, _ in most)
    assert pages(jobs, JobFilter(labels=(*most, *any_value, *most)), 10) == [job.id]
    assert pages(jobs, JobFilter(labels=(*most, *any_value, ("another", ""))), 10) == []
    assert pages(jobs, JobFilter(labels=tuple((f"key-{number}", "v") for number in range(4096))), 10) == []


def test_a_list_leaves_the_big_parts_of_a_row_alone(jobs: Jobs, tmp_path: Path) -> None:
    """Work, result and journal are never decoded: here nobody could."""
    job = jobs.submit(ScanWork(), JobOptions())[0]
    with closing(open_database(tmp_path)) as database:
        database.execute("UPDATE jobs SET work = x'c1', result = x'c1'")
        database.execute("UPDATE events SET body = x'c1'")
        (listed,), _ = Jobs(JobStore(database, tmp_path), keep_s=3600).page(JobFilter(), None, 10)
    assert (listed.id, listed.state, listed.summary) == (job.id, JobState.QUEUED, "scan all model roots")


def test_an_end_that_found_no_room_is_found_by_its_state(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise ResourceExhausted("full", ErrorReason.STORAGE_FULL)

    job: Job = jobs.submit(ScanWork(), JobOptions())[0]
    jobs.submit(ScanWork(), JobOptions())
    jobs.record(job.id, Started(device_id="cpu", attempt=1))
    monkeypatch.setattr(JobStore, "record", no_room)
    jobs.record(job.id, Succeeded(result=ScanResult(report=ScanReport()), receipt=receipt_of(job, Instant.now())))
    assert pages(jobs, JobFilter(states=(JobState.FAILED,)), 10) == [job.id]
    assert pages(jobs, JobFilter(states=(JobState.RUNNING,)), 10) == []
