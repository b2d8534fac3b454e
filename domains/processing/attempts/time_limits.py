"""How long one attempt at a job may run, and how long its loading may take."""

import asyncio
import time
from collections.abc import Callable

from domains.errors import ErrorReason
from domains.processing.jobs.job import JobOptions
from domains.stop import Stop, StopKind


class TimeLimits:
    """The time limits of one attempt. The run limit starts with the object."""

    def __init__(self, options: JobOptions, on_over: Callable[[Stop], None], ran_s: float = 0.0) -> None:
        """`on_over`: called with a request to stop when a limit is exceeded. `ran_s`: seconds of the run limit that
        earlier attempts used up."""
        self._options = options
        self._on_over = on_over
        self._loading: asyncio.TimerHandle | None = None
        self._ran_s = ran_s
        self._began_s = time.monotonic()
        self._running = self._timer(options.run_timeout_s, _ran_too_long, ran_s)

    def change(self, options: JobOptions) -> None:
        """Apply the run limit of these options; the time until now counts."""
        if self._running is not None:
            self._running.cancel()
        self._options = options
        used_s = self._ran_s + time.monotonic() - self._began_s
        self._running = self._timer(options.run_timeout_s, _ran_too_long, used_s)

    def loading(self) -> None:
        """Start the load limit."""
        self.loaded()
        self._loading = self._timer(self._options.load_timeout_s, _loaded_too_long)

    def loaded(self) -> None:
        """Cancel the load limit."""
        if self._loading is not None:
            self._loading.cancel()

    def close(self) -> None:
        """Cancel both limits."""
        self.loaded()
        if self._running is not None:
            self._running.cancel()

    def _timer(
        self, limit_s: float | None, over: Callable[[float], Stop], used_s: float = 0.0
    ) -> asyncio.TimerHandle | None:
        if limit_s is None:
            return None
        return asyncio.get_running_loop().call_later(max(0.0, limit_s - used_s), lambda: self._on_over(over(limit_s)))


def _ran_too_long(limit_s: float) -> Stop:
    cause = f"ran longer than its run_timeout of {limit_s:g} s; allow more time or ask for fewer steps"
    return _time_up(cause, ErrorReason.RUN_TIMEOUT, run_timeout_s=f"{limit_s:g}")


def _loaded_too_long(limit_s: float) -> Stop:
    cause = f"loading its model took longer than its load_timeout of {limit_s:g} s; allow more, or load it before"
    return _time_up(cause, ErrorReason.LOAD_TIMEOUT, load_timeout_s=f"{limit_s:g}")


def _time_up(cause: str, reason: ErrorReason, **facts: str) -> Stop:
    return Stop(kind=StopKind.TIME_UP, cause=cause, reason=reason, facts=facts, asked_s=time.monotonic())
