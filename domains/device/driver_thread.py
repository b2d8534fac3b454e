"""Driver calls from an event loop: a thread for each device and a deadline, so that a hanging driver blocks nobody."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from domains.errors import ErrorReason, InternalError

Answer = TypeVar("Answer")

ANSWER_S = 2.0
"""How long a driver may take."""


class DriverThread:
    """Makes one call after the other. A daemon thread, and no pool: one that hangs must not keep the process from ending."""

    def __init__(self, name: str, limit_s: float = ANSWER_S) -> None:
        self.name = name
        self._limit_s = limit_s
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._hung: Future[Any] | None = None
        threading.Thread(target=self._work, name=f"driver-{name}", daemon=True).start()

    @property
    def hangs(self) -> bool:
        """Whether a call is overdue and has still not come back."""
        return self._hung is not None and not self._hung.done()

    async def ask(self, call: Callable[[], Answer]) -> Answer:
        """The answer of `call`. DRIVER_ERROR after the deadline, and at once while an older call is overdue."""
        if self.hangs:
            raise self._overdue()
        answer = self.begin(call)
        waiting = asyncio.wrap_future(answer)
        # Not `wait_for`: a caller that leaves must not cancel the call that others' answers queue behind.
        done, _ = await asyncio.wait({waiting}, timeout=self._limit_s)
        if not done:
            self._hung = answer
            raise self._overdue()
        return waiting.result()

    def begin(self, call: Callable[[], Answer]) -> Future[Answer]:
        """The answer, some time. Whoever asks again and again must wait for it first: one that hangs is followed by none."""
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
        """End the thread when its calls are done."""
        self._calls.put(None)

    def _work(self) -> None:
        while (task := self._calls.get()) is not None:
            answer, call = task
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                answer.set_result(call())
            except BaseException as error:  # told to whoever asked
                answer.set_exception(error)
