"""Ends open streams at shutdown: each gets DRAINING instead of a broken connection."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, contextmanager
from typing import TypeVar

from domains.errors import ErrorReason, Unavailable

M = TypeVar("M")


def gone() -> Unavailable:
    """The error with which the shutdown ends a stream."""
    message = (
        "the server shuts down before this stream has ended; jobs and pictures are kept: ask again after its restart"
    )
    return Unavailable(message, ErrorReason.DRAINING)


class Streams:
    """The open streams of one server. One event loop."""

    def __init__(self) -> None:
        self._open: set[asyncio.Future[None]] = set()
        self._cut = False

    @contextmanager
    def open(self) -> Generator[asyncio.Future[None]]:
        """A future of the stream's own, which is done when the stream is to end with `gone`."""
        # One future for each stream: removing a waiter from a shared future takes time proportional to its waiters.
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._cut:
            end.set_result(None)
        self._open.add(end)
        try:
            yield end
        finally:
            self._open.discard(end)

    def cut(self) -> None:
        """End all open streams, and every stream that opens later."""
        self._cut = True
        for end in self._open:
            if not end.done():
                end.set_result(None)

    async def until_cut(self, messages: AsyncIterator[M]) -> AsyncGenerator[M]:
        """Yields the messages. After the cut, raises `gone` instead of yielding the next one."""
        with self.open() as end:
            async with aclosing(messages):  # pyright: ignore[reportArgumentType]  # generators
                async for message in messages:
                    if end.done():
                        raise gone()
                    yield message
