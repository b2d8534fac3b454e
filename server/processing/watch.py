"""Follows a job, for WatchJob and for every call that submits a job and follows it."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import grpc

from domains.errors import InvalidRequest, Violation
from domains.inference.generation import Previews
from domains.journal import Entry
from domains.processing.jobs.event import STATE_AFTER, JobEvent, images_of
from domains.processing.jobs.job import Job
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.live_job import LiveJob
from domains.processing.jobs.preview_wishes import PreviewWishes
from domains.processing.jobs.state import JobState
from domains.processing.jobs.unread import Unread
from domains.processing.submit import Submissions
from domains.requests import Asked
from server.heartbeat import Followed
from server.once import asked_of
from server.processing.job_messages import heartbeat, rendered

_WAIT_S = 60.0
"""Longest single wait for the journal; the reader then waits again."""


def follow(jobs: Jobs, job_id: str, after: int = 0) -> Followed[bytes]:
    """A job's events after a sequence, as WatchJobResponse bytes, up to and with its last."""
    reader = _Reader(jobs.live(job_id), after, jobs.unread)
    return Followed(reader.events(), reader.beat)


class _Reader:
    """One reader's position in a journal. The job never waits for a reader; a slow reader gets the newest progress next."""

    def __init__(self, live: LiveJob, after: int, unread: Unread) -> None:
        last = live.journal.last_sequence
        if not 0 <= after <= last:
            message = f"{after} is not within 0..{last}; give the sequence of the last event that you saw, or 0 for all"
            raise InvalidRequest([Violation(field="after_sequence", message=message, allowed=f"0..{last}")])
        self._live = live
        self._unread = unread
        self._told_blobs: set[str] = set()
        self._position = after
        seen = [entry for entry in live.journal.after(0) if entry.sequence <= after]
        self._state = _state_after(seen)
        last_s = seen[-1].time_s if seen else live.job.create_time_s
        self._told_s = time.monotonic() - max(0.0, time.time() - last_s)
        """Time of the last event before the reader's position, on the monotonic clock."""

    async def events(self) -> AsyncGenerator[bytes]:
        """Yields messages until the job ends; first a heartbeat if no event is available at once."""
        with self._unread.following(self._live.job.id):
            async for message in self._messages():
                yield message

    async def _messages(self) -> AsyncGenerator[bytes]:
        journal = self._live.journal
        if not journal.closed and self._position >= journal.last_sequence:
            yield self.beat()
        while True:
            for entry in journal.after(self._position):
                self._state = STATE_AFTER.get(type(entry.value), self._state)
                self._position = entry.sequence
                self._told_s = time.monotonic() - max(0.0, time.time() - entry.time_s)
                self._note_pictures(entry.value)
                yield rendered(self._live.job, entry, self._state)
            if journal.closed and self._position >= journal.last_sequence:
                return
            await journal.more(self._position, _WAIT_S)

    def _note_pictures(self, event: JobEvent) -> None:
        """Record each picture that this reader gets for the first time."""
        new = {image.blob.id for image in images_of(event)} - self._told_blobs
        self._told_blobs |= new
        for blob_id in new:
            self._unread.told(blob_id)

    def beat(self) -> bytes:
        """The heartbeat of this moment."""
        quiet_s = time.monotonic() - self._told_s
        return heartbeat(self._live.job, self._position, time.time(), quiet_s)


def _state_after(entries: Sequence[Entry[JobEvent]]) -> JobState:
    """The state of a job after its first events."""
    moves = [STATE_AFTER.get(type(entry.value)) for entry in entries]
    return next((state for state in reversed(moves) if state), JobState.QUEUED)


class Watching:
    """Adds the preview wishes of watchers to their jobs."""

    def __init__(self, wishes: PreviewWishes, default: Previews) -> None:
        """`default`: the previews for a watcher whose request names none."""
        self.wishes = wishes
        self._default = default

    def wish_of(self, wish: Previews | None) -> Previews:
        """A watcher's wish, or the default."""
        return self._default if wish is None else wish

    def join(self, job_id: str, wish: Previews | None, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Add a watcher's wish until the call ends. None: the default."""
        leave = self.wishes.join(job_id, self.wish_of(wish))
        context.add_done_callback(lambda _: leave())  # pyright: ignore[reportArgumentType]  # as in `submit_and_follow`


def submit_and_follow(
    submissions: Submissions,
    request: Any,
    context: grpc.aio.ServicerContext[Any, Any],
    submit: Callable[[Asked], Job],
) -> Followed[bytes]:
    """Follow a request's job from its first event. A repeated request follows the job that it made before.

    When the last call with this request has ended, the job is cancelled, unless one of them set `detached`. The server's
    shutdown ends calls too; it cancels no job, and the job continues after the restart.
    """
    asked, detached = asked_of(request), bool(request.detached)
    job = submissions.again(asked, detached=detached) or submit(asked)
    return _followed(submissions, job.id, context, detached=detached)


async def submit_later_and_follow(
    submissions: Submissions,
    request: Any,
    context: grpc.aio.ServicerContext[Any, Any],
    submit: Callable[[Asked], Awaitable[Job]],
) -> Followed[bytes]:
    """As `submit_and_follow`, for work whose inputs are read before the job is stored."""
    asked, detached = asked_of(request), bool(request.detached)
    job = submissions.again(asked, detached=detached) or await submit(asked)
    return _followed(submissions, job.id, context, detached=detached)


def _followed(
    submissions: Submissions, job_id: str, context: grpc.aio.ServicerContext[Any, Any], *, detached: bool
) -> Followed[bytes]:
    jobs, callers = submissions.jobs, submissions.callers
    callers.join(job_id, detached=detached)

    def left(_: object) -> None:
        job = jobs.find(job_id)
        wanted = job is not None and (job.detached or job.state.ended)
        if callers.leave(job_id) and job is not None and not wanted and not submissions.draining.begun:
            jobs.cancel(job_id, "the call that submitted it was left")

    context.add_done_callback(left)  # pyright: ignore[reportArgumentType]  # the stubs want a class of their own
    return follow(jobs, job_id)
