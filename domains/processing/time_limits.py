"""How long one attempt at a job may run, and how long its loading may take."""

import asyncio
from collections.abc import Callable

from domains.errors import DeadlineExceeded, ErrorReason
from domains.processing.job import JobOptions


class TimeLimits:
    """Of one attempt, from now on."""

    over: DeadlineExceeded | None = None
    """Which of them was exceeded, the first; None: neither."""

    def __init__(self, options: JobOptions, on_over: Callable[[], None]) -> None:
        self._options = options
        self._on_over = on_over
        self._loading: asyncio.TimerHandle | None = None
        self._running = self._timer(options.run_timeout_s, _ran_too_long)

    def loading(self) -> None:
        """The model begins to load."""
        self.loaded()
        self._loading = self._timer(self._options.load_timeout_s, _loaded_too_long)

    def loaded(self) -> None:
        """It is there."""
        if self._loading is not None:
            self._loading.cancel()

    def close(self) -> None:
        """The attempt has ended."""
        self.loaded()
        if self._running is not None:
            self._running.cancel()

    def _timer(self, limit_s: float | None, over: Callable[[float], DeadlineExceeded]) -> asyncio.TimerHandle | None:
        if limit_s is None:
            return None
        return asyncio.get_running_loop().call_later(limit_s, lambda: self._end(over(limit_s)))

    def _end(self, problem: DeadlineExceeded) -> None:
        if self.over is None:
            self.over = problem
            self._on_over()


def _ran_too_long(limit_s: float) -> DeadlineExceeded:
    message = f"ran longer than its run_timeout of {limit_s:g} s; allow more time or ask for fewer steps"
    return DeadlineExceeded(message, ErrorReason.RUN_TIMEOUT, run_timeout_s=limit_s)


def _loaded_too_long(limit_s: float) -> DeadlineExceeded:
    message = f"loading its model took longer than its load_timeout of {limit_s:g} s; allow more, or load it before"
    return DeadlineExceeded(message, ErrorReason.LOAD_TIMEOUT, load_timeout_s=limit_s)
