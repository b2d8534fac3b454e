"""Reports the events of jobs to the sessions of the jobs. `domains.processing.sessions` implements it."""

import sqlite3
from collections.abc import Callable
from typing import Protocol

import msgspec

from domains.journal import Entry
from domains.processing.jobs.event import JobEvent
from domains.processing.jobs.job import Job


class News(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a job, with its place among all events of the job's session."""

    number: int
    """0: the job has no session, or one that has ended."""
    job: Job
    """The job after the event."""
    entry: Entry[JobEvent]


class SessionLog(Protocol):
    """Gives the events of jobs their places in the jobs' sessions."""

    def news(self, job: Job, entry: Entry[JobEvent]) -> News:
        """The event with the next place. `job`: the job after the event."""
        ...

    def note(self, news: News) -> Callable[[sqlite3.Connection], None]:
        """The function that stores a durable event for the session, inside the transaction of the event itself."""
        ...

    def tell(self, news: News, slot: str = "") -> None:
        """Show an event to the followers of the session. `slot`: see `Journal.publish`."""
        ...

    def forget(self, job: Job) -> None:
        """Drop the events of a deleted job."""
        ...


class NoSessions:
    """A `SessionLog` without sessions."""

    def news(self, job: Job, entry: Entry[JobEvent]) -> News:
        """The event without a place."""
        return News(number=0, job=job, entry=entry)

    def note(self, news: News) -> Callable[[sqlite3.Connection], None]:
        """Nothing to store."""
        return _nothing

    def tell(self, news: News, slot: str = "") -> None:
        """There are no followers."""

    def forget(self, job: Job) -> None:
        """Nothing to drop."""


def _nothing(db: sqlite3.Connection) -> None:
    """Store nothing."""
