"""Threads that the system refuses: a pool that does nothing that it has refused, and starts that do not wait for ever."""

import math
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
_BEGIN_S = 3.0
"""A new thread that has not begun after this long has died."""
_BEGIN_AGAIN_S = 0.3
"""The same, within `_LATELY_S` of such a death: where memory is short, each call for a thread stops the event loop."""
_LATELY_S = 10.0


class ThreadPool(ThreadPoolExecutor):
    """Python's own pool queues the work before it starts a thread. Where the system refuses the thread, `submit` raises, and
    a thread that runs already still does the work: after its caller was told that it failed."""

    def submit(self, fn: Callable[_Given, _Result], /, *args: _Given.args, **kwargs: _Given.kwargs) -> Future[_Result]:
        """As `Executor.submit`. After `RuntimeError` or `MemoryError` the work is never done."""
        answer = Future[_Result]()

        def work() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # passed to the caller
                answer.set_exception(error)
            else:
                answer.set_result(result)

        def left_out(item: Future[None]) -> None:
            # `shutdown(cancel_futures=True)` cancels what waits.
            if item.cancelled():
                answer.cancel()

        try:
            super().submit(work).add_done_callback(left_out)
        except (RuntimeError, MemoryError):
            if answer.cancel():
                raise
            # Another thread has begun it.
        return answer


class _Begun(threading.Event):
    """Set when a thread begins, or dies before. Takes the place of the event that `Thread.start` awaits without a limit."""

    last_death_s = -math.inf
    """Of all threads, on the monotonic clock."""

    def __init__(self) -> None:
        super().__init__()
        self.died = False

    def wait(self, timeout: float | None = None) -> bool:
        """As `Event.wait`."""
        if timeout is not None:
            return super().wait(timeout)
        lately = time.monotonic() - _Begun.last_death_s < _LATELY_S
        return super().wait(_BEGIN_AGAIN_S if lately else _BEGIN_S)


@contextmanager
def bounded_starts() -> Generator[None]:
    """While the block runs, `Thread.start` raises `MemoryError` for a thread that died before it began, because the system
    gave it no memory. Python's own waits for ever, and with it the event loop (python/cpython#140746)."""
    start, hook = threading.Thread.start, sys.unraisablehook

    def bounded(self: threading.Thread) -> None:
        begun = _Begun()
        if self.ident is None:
            setattr(self, "_started", begun)  # noqa: B010  # no public name
        start(self)
        if begun.died or not begun.is_set():
            self.run = _nothing  # it may be late, not dead
            _Begun.last_death_s = time.monotonic()
            raise MemoryError

    def look(args: "UnraisableHookArgs") -> None:
        try:
            hook(args)
        finally:
            begun = getattr(getattr(args.object, "__self__", None), "_started", None)
            if isinstance(begun, _Begun) and not begun.is_set():
                begun.died = True
                begun.set()

    threading.Thread.start, sys.unraisablehook = bounded, look
    try:
        yield
    finally:
        threading.Thread.start, sys.unraisablehook = start, hook


def _nothing() -> None:
    pass
