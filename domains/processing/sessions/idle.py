"""Closes sessions that have no job, no watcher and no call for their idle timeout."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from domains.processing.sessions.live_session import LiveSession
from domains.processing.sessions.session import SessionState


class Timer(Protocol):
    """A timer that can be cancelled."""

    def cancel(self) -> object: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


def loop_timer(after_s: float, call: Callable[[], None]) -> Timer:
    """A timer of the running event loop."""
    return asyncio.get_running_loop().call_later(after_s, call)


class IdleTimers:
    """One timer for each session with an idle timeout. Use only moves the session's own time: a timer that fires too early
    waits again."""

    def __init__(self, close: Callable[[str], object], call_later: CallLater = loop_timer) -> None:
        """`close`: closes a session, by id."""
        self._close = close
        self._call_later = call_later
        self._timers: dict[str, Timer] = {}

    def arm(self, live: LiveSession) -> None:
        """Watch a session by its present settings."""
        if timer := self._timers.pop(live.session.id, None):
            timer.cancel()
        limit_s = live.session.settings.idle_timeout_s
        if limit_s is None or live.session.state in (SessionState.CLOSING, SessionState.CLOSED):
            return
        left_s = limit_s - live.idle_s()
        if left_s <= 0:
            self._close(live.session.id)
        else:
            self._timers[live.session.id] = self._call_later(left_s, lambda: self.arm(live))
