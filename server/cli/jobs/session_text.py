"""Sessions as text: a row of the list, the facts of one, a line for an event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from server.cli.console.printing import (
    bytes_text,
    duration_s,
    figure,
    local_time,
    measured_bytes,
    notice,
    seconds_text,
    word,
)

if TYPE_CHECKING:
    from deviceops.processing.v1.processing_service_pb2 import WatchSessionResponse
    from deviceops.processing.v1.session_pb2 import Session


def row(session: Session) -> tuple[str, ...]:
    """A row of `deviceops sessions`."""
    counts = session.job_counts
    done = counts.succeeded + counts.partially_succeeded + counts.failed + counts.cancelled
    return (
        session.id,
        session.settings.display_name,
        _state(session),
        _weight(session),
        str(counts.queued + counts.paused),
        str(counts.running),
        str(done),
        local_time(session.create_time),
    )


def facts(session: Session) -> Iterator[tuple[str, str]]:
    """The facts of a session by name."""
    counts, usage = session.job_counts, session.usage
    yield "session", session.id
    if session.settings.display_name:
        yield "name", session.settings.display_name
    yield "state", _state(session)
    yield "weight", _weight(session)
    for field, value in session.settings.limits.ListFields():
        yield "limit", f"{field.name.removeprefix('max_').replace('_', ' ')}: {value}"
    for label in session.settings.labels:
        yield "label", f"{label.key}={label.value}"
    if session.settings.HasField("idle_timeout"):
        yield "closes", f"after {seconds_text(duration_s(session.settings.idle_timeout))} without use"
    yield "jobs", ", ".join(f"{value} {field.name.replace('_', ' ')}" for field, value in counts.ListFields()) or "none"
    yield "made", f"{usage.images_made} pictures in {usage.steps_executed} steps"
    run, queue = (seconds_text(duration_s(span)) for span in (usage.run_time, usage.queue_time))
    yield "took", f"{run}, after {queue} of waiting"
    yield "memory", f"{measured_bytes(usage, 'device_bytes')} on devices, {bytes_text(usage.result_bytes)} of results"
    yield "created", local_time(session.create_time)
    if session.HasField("close_time"):
        yield "closed", local_time(session.close_time)


def line(message: WatchSessionResponse) -> str:
    """An event of a session on one line."""
    if message.HasField("session"):
        return f"{message.session_sequence}  session is {_state(message.session)}"
    event = message.job_update.event
    kind = (event.WhichOneof("kind") or "").replace("_", " ")
    return f"{message.session_sequence}  {event.job_id}  {kind}"


def _state(session: Session) -> str:
    from deviceops.processing.v1 import session_pb2

    return word(session_pb2.SessionState.Name(session.state), "SESSION_STATE_")


def _weight(session: Session) -> str:
    return figure(session.settings.weight if session.settings.HasField("weight") else 1.0)


def tell_state(session: Session) -> None:
    """Tell on stderr in which state the session is now."""
    notice(f"Session {session.id} is {_state(session)}.")
