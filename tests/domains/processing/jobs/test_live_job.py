"""The times of a job, measured on a clock that no operator sets."""

from msgspec.structs import replace

from domains.journal import Journal
from domains.processing.jobs.event import JobEvent
from domains.processing.jobs.instant import Instant
from domains.processing.jobs.job import Job, JobOptions
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.kinds import ScanWork
from domains.processing.jobs.live_job import LiveJob

DRAFT = replace(Jobs.draft(ScanWork(), JobOptions()), create_time_s=1000.0)


def live(job: Job, created_s: float | None = None, started_s: float | None = None) -> LiveJob:
    journal: Journal[JobEvent] = Journal()
    found = LiveJob(job, journal, 1000)
    found.created_s, found.started_s = created_s, started_s
    return found


def test_a_first_start_tells_how_long_the_job_has_waited() -> None:
    now = Instant(5000.0, 57.0)
    waiting = live(DRAFT, created_s=50.0)
    assert (waiting.starts(DRAFT, now).waited_s, waiting.started_s) == (7.0, 57.0)
    of_before = live(DRAFT)
    assert (of_before.starts(DRAFT, now).waited_s, of_before.started_s) == (None, 57.0)
    again = live(replace(DRAFT, start_time_s=1001.0), created_s=50.0, started_s=51.0)
    assert (again.starts(DRAFT, now), again.started_s) == (DRAFT, 51.0)


def test_a_moment_ignores_steps_of_the_wall_clock() -> None:
    now = Instant(99.0, 60.0)
    assert live(DRAFT, created_s=50.0).at(now) == Instant(1010.0, 60.0)
    started = replace(DRAFT, start_time_s=1003.0)
    assert live(started, created_s=50.0, started_s=53.0).at(now) == Instant(1010.0, 60.0)
    assert live(DRAFT).at(now) == live(started, created_s=50.0).at(now) == now, "an earlier process created it"
