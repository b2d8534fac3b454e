"""Following a job: the one path behind WatchJob and every door."""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from domains.errors import InvalidRequest, Violation
from domains.inference.generation import Previews
from domains.journal import Entry
from domains.processing.job_event import STATE_AFTER, JobEvent
from domains.processing.job_state import JobState
from domains.processing.jobs import Jobs
from domains.processing.preview_wishes import PreviewWishes
from domains.processing.submit import Submissions
from server.job_messages import heartbeat, rendered

HEARTBEAT_S = 10.0
"""The longest silence."""


async def follow(jobs: Jobs, job_id: str, after: int = 0) -> AsyncIterator[bytes]:
    """A job's events after a sequence, as WatchJobResponse bytes, up to and with its last. A reader is only a position:
    one who is slow finds the newest progress when it comes back, and nobody waits for it."""
    live = jobs.live(job_id)
    last = live.journal.last_sequence
    if not 0 <= after <= last:
        message = f"{after} is not within 0..{last}; give the sequence of the last event that you saw, or 0 for all"
        raise InvalidRequest([Violation(field="after_sequence", message=message, allowed=f"0..{last}")])
    journal, position = live.journal, after
    state = _state_at(live.journal.after(0), after)
    while True:
        for entry in journal.after(position):
            state = STATE_AFTER.get(type(entry.value), state)
            position = entry.sequence
            yield rendered(live.job, entry, state)
        if journal.closed and position >= journal.last_sequence:
            return
        before = time.monotonic()
        if not await journal.more(position, HEARTBEAT_S):
            yield heartbeat(live.job, position, time.time(), time.monotonic() - before)


def _state_at(entries: Sequence[Entry[JobEvent]], sequence: int) -> JobState:
    """The state that a job had when it wrote its `sequence`-th event."""
    moves = [STATE_AFTER.get(type(entry.value)) for entry in entries if entry.sequence <= sequence]
    return next((state for state in reversed(moves) if state), JobState.QUEUED)


class Watching:
    """What those who watch jobs want to see of pictures that are being made."""

    def __init__(self, wishes: PreviewWishes, default: Previews) -> None:
        """`default`: the wish of a watcher who says nothing."""
        self._wishes = wishes
        self._default = default

    def join(self, job_id: str, wish: Previews | None, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Until the call ends, however it ends."""
        leave = self._wishes.join(job_id, self._default if wish is None else wish)
        context.add_done_callback(lambda _: leave())  # pyright: ignore[reportArgumentType]  # as in `door`


def door(
    submissions: Submissions, job_id: str, context: grpc.aio.ServicerContext[Any, Any], *, detached: bool
) -> AsyncIterator[bytes]:
    """Follow a job from its first event; when the last of those who asked for it has left, it is cancelled, unless one of
    them said `detached`.

    A server that shuts down leaves the call itself: that is not the caller's wish, and the job goes on after
    the restart.
    """
    jobs, attachments = submissions.jobs, submissions.attachments
    attachments.join(job_id, detached=detached)

    def left(_: object) -> None:
        job = jobs.find(job_id)
        wanted = job is not None and (job.detached or job.state.ended)
        if attachments.leave(job_id) and job is not None and not wanted and not submissions.draining:
            jobs.cancel(job_id, "the call that submitted it was left")

    context.add_done_callback(left)  # pyright: ignore[reportArgumentType]  # the stubs want a class of their own
    return follow(jobs, job_id)
