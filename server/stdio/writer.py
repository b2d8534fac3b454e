"""Writes to a blocking pipe for an event loop, which must not wait when the other end does not read."""

import asyncio
import select
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_SMALL_BYTES = 4096
"""A pipe that is ready for writing takes this much without waiting (PIPE_BUF of POSIX)."""


class PipeWriter:
    """Runs writes in order: small ones at once if the pipe has room, others in a daemon thread, so exit does not wait."""

    def __init__(self, out_fd: int) -> None:
        self._fd = out_fd
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._pending = 0
        threading.Thread(target=self._work, name="frame-writer", daemon=True).start()

    async def run(self, write: Callable[[], T], size: int) -> T:
        """Return what `write`, which writes about `size` bytes, returns. Raises its error."""
        if not self._pending and size < _SMALL_BYTES // 2 and self._has_room():
            return write()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def order() -> None:
            try:
                result = write()
            except Exception as error:
                loop.call_soon_threadsafe(_settle, done, None, error)
            else:
                loop.call_soon_threadsafe(_settle, done, result, None)

        self._pending += 1
        self._orders.put(order)
        try:
            return await asyncio.shield(done)
        finally:
            self._pending -= 1

    def _has_room(self) -> bool:
        if sys.platform == "win32":
            return False  # `select` takes only sockets there
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))

    def _work(self) -> None:
        while True:
            try:
                self._orders.get()()
            except RuntimeError:
                return  # the event loop is closed


def _settle(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
