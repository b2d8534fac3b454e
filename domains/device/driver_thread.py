"""A thread that makes driver calls, each with a deadline, so that a hanging driver blocks no event loop."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from domains.errors import ErrorReason, InternalError

Answer = TypeVar("Answer")

ANSWER_S = 2.0
"""How long a driver call may take."""


class DriverThread:
    """Makes driver calls one by one. A daemon thread instead of a pool: a hanging call must not block the process's exit."""

    def __init__(self, name: str, limit_s: float = ANSWER_S) -> None:
        self.name = name
        self._limit_s = limit_s
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._hung: Future[Any] | None = None
        threading.Thread(target=self._work, name=f"driver-{name}", daemon=True).start()

    @property
    def hangs(self) -> bool:
        """Whether a call is overdue and has not returned."""
        return self._hung is not None and not self._hung.done()

    async def ask(self, call: Callable[[], Answer]) -> Answer:
        """Return the result of `call`. DRIVER_ERROR after the deadline, and at once while an earlier call is overdue."""
        if self.hangs:
            raise self._overdue()
        answer = self.begin(call)
        waiting = asyncio.wrap_future(answer)
        # Not `wait_for`: a caller that leaves must not cancel the call, because other calls queue behind it.
        done, _ = await asyncio.wait({waiting}, timeout=self._limit_s)
        if not done:
            self._hung = answer
            raise self._overdue()
        return waiting.result()

    def begin(self, call: Callable[[], Answer]) -> Future[Answer]:
        """Queue a call without a deadline. A caller that repeats it must wait for the result first."""
        answer: Future[Answer] = Future()
        self._calls.put((answer, call))
        return answer

    def _overdue(self) -> InternalError:
        return InternalError(
            f"the driver of {self.name} has not answered for {self._limit_s:g} s; if it stays so, restart the machine",
            ErrorReason.DRIVER_ERROR,
            device_id=self.name,
        )

    def stop(self) -> None:
        """End the thread after its queued calls."""
        self._calls.put(None)

    def _work(self) -> None:
        while (task := self._calls.get()) is not None:
            answer, call = task
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                answer.set_result(call())
            except BaseException as error:  # passed to the caller
                answer.set_exception(error)
