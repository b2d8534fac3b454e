"""The terms of sessions: each one's share of a busy device, and the limits of its own."""

from collections.abc import Callable, Mapping

from domains.errors import ErrorReason, ResourceExhausted
from domains.processing.sessions.live_session import LiveSession
from domains.processing.sessions.session import SessionState
from domains.processing.sessions.store import SessionStore


class SessionTerms:
    """Reads the sessions that have not ended; changes none. One event loop."""

    def __init__(
        self, live: Mapping[str, LiveSession], store: SessionStore, device_bytes: Callable[[str], int | None]
    ) -> None:
        """`live`: the sessions that have not ended, by id. `device_bytes`: returns the device memory that the jobs of a
        session hold; None: it cannot be measured."""
        self._live = live
        self._store = store
        self.device_bytes = device_bytes

    def weight(self, session_id: str) -> float:
        """The session's share of a busy device against others. 1 for jobs without a session."""
        live = self._live.get(session_id)
        return 1.0 if live is None else live.session.weight

    def holds_back(self, session_id: str, running: int) -> bool:
        """Whether no job of the session may start while so many run."""
        live = self._live.get(session_id)
        if live is None:
            return False
        limits = live.session.limits
        if live.session.state is SessionState.PAUSED or 0 < limits.max_running_jobs <= running:
            return True
        held = self.device_bytes(session_id) if limits.max_device_bytes else None
        return held is not None and held >= limits.max_device_bytes

    def held_because(self, session_id: str) -> str:
        """Why the session starts no more jobs now, for people. Empty: it has ended."""
        live = self._live.get(session_id)
        if live is None:
            return ""
        if live.session.state is SessionState.PAUSED:
            return f"session {session_id} is paused" + (f": {live.session.cause}" if live.session.cause else "")
        return f"session {session_id} has reached a limit of its own on what runs"

    def check_room(self, live: LiveSession, retry_after_s: float) -> None:
        """Raise QUOTA_EXCEEDED if a session has no room for one more job, with the time after which one may try again."""
        session_id, limits, queued = live.session.id, live.session.limits, live.counts().get("queued", 0)
        if limits.max_queued_jobs and queued >= limits.max_queued_jobs:
            told = _beyond(session_id, "jobs that wait", "max_queued_jobs", queued, limits.max_queued_jobs)
            told.retry_after_s = retry_after_s
            raise told
        if limits.max_result_bytes and (made := self._store.result_bytes(session_id)) >= limits.max_result_bytes:
            raise _beyond(session_id, "bytes of results", "max_result_bytes", made, limits.max_result_bytes)


def _beyond(session_id: str, what: str, name: str, has: int, limit: int) -> ResourceExhausted:
    message = f"session {session_id} has {has} {what}, and its {name} is {limit}"
    return ResourceExhausted(
        message, ErrorReason.QUOTA_EXCEEDED, session_id=session_id, limit_name=name, present=has, limit=limit
    )
