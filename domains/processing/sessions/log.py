"""Gives the events of jobs their places among the events of the jobs' sessions, on disk and in memory."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress

from domains.errors import DeviceOpsError
from domains.journal import Entry
from domains.processing.jobs.event import END_STATE, JobEvent, images_of
from domains.processing.jobs.job import Job
from domains.processing.jobs.session_log import News
from domains.processing.sessions.live_session import LiveSession
from domains.processing.sessions.session import SessionTotals, images_made
from domains.processing.sessions.store import SessionStore, StoredNews

CEILING_STEP = 1000
"""The disk reserves so many sequences at a time, because progress and previews are visible but not stored."""


class JobNews:
    """Implements `domains.processing.jobs.session_log.SessionLog`."""

    def __init__(self, store: SessionStore, live: Mapping[str, LiveSession]) -> None:
        """`live`: the sessions that have not ended, by id."""
        self._store = store
        self._live = live

    def news(self, job: Job, entry: Entry[JobEvent]) -> News:
        """The event with the next place."""
        live = self._live.get(job.options.session_id)
        return News(number=0 if live is None else self.next_place(live), job=job, entry=entry)

    def next_place(self, live: LiveSession) -> int:
        """The next place of a session, reserved on disk."""
        place = live.next_sequence()
        if place > live.ceiling:
            # The end of a job is told on a full disk too; the next event reserves places again.
            with suppress(DeviceOpsError):
                self._store.raise_ceiling(live.session.id, place + CEILING_STEP)
                live.ceiling = place + CEILING_STEP
        return place

    def note(self, news: News) -> Callable[[sqlite3.Connection], None]:
        """The function that stores the place, the files that the event tells of, and after an end the session's sums."""
        live = self._live.get(news.job.options.session_id) if news.number else None
        return _nothing if live is None else lambda db: self._note(db, live, news)

    def _note(self, db: sqlite3.Connection, live: LiveSession, news: News) -> None:
        session_id, job = live.session.id, news.job
        place = StoredNews(
            sequence=news.number, job_id=job.id, job_sequence=news.entry.sequence, state=job.state, view=None
        )
        self._store.insert_news(db, session_id, place)
        for image in images_of(news.entry.value):
            self._store.insert_result(db, session_id, job.id, image.blob.id, image.blob.size_bytes)
        if type(news.entry.value) in END_STATE:
            self._store.set_totals(db, session_id, _with_end(live.totals, job))

    def tell(self, news: News, slot: str = "") -> None:
        """Show an event to the followers of its session."""
        live = self._live.get(news.job.options.session_id) if news.number else None
        if live is None:
            return
        if type(news.entry.value) in END_STATE:
            live.totals = _with_end(live.totals, news.job)
            live.journal.vacate(_slot(news.job.id))
        live.show(news.number, news, news.entry.time_s, slot and _slot(news.job.id) + slot)

    def forget(self, job: Job) -> None:
        """Drop the events of a deleted job."""
        if (live := self._live.get(job.options.session_id)) is not None:
            live.journal.discard(lambda event: isinstance(event, News) and event.job.id == job.id)


def _with_end(totals: SessionTotals, job: Job) -> SessionTotals:
    return totals.with_job(job.state, job.receipt, images_made(job))


def _slot(job_id: str) -> str:
    """The beginning of the names of a job's slots in the journal of its session."""
    return f"{job_id}/"


def _nothing(db: sqlite3.Connection) -> None:
    """Store nothing."""
