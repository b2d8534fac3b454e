"""The end of open streams when the server goes: each is told DRAINING, instead of a connection that breaks."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, contextmanager
from typing import TypeVar

from domains.errors import ErrorReason, Unavailable

M = TypeVar("M")


def gone() -> Unavailable:
    """What a stream is told that the shutdown cuts."""
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
        # One each: a waiter leaves a future that many wait for in a time that grows with their number.
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._cut:
            end.set_result(None)
        self._open.add(end)
        try:
            yield end
        finally:
            self._open.discard(end)

    def cut(self) -> None:
        """End all streams, and those that come."""
        self._cut = True
        for end in self._open:
            if not end.done():
                end.set_result(None)

    async def until_cut(self, messages: AsyncIterator[M]) -> AsyncGenerator[M]:
        """The messages; `gone` in place of the next one after the cut."""
        with self.open() as end:
            async with aclosing(messages):  # pyright: ignore[reportArgumentType]  # generators
                async for message in messages:
                    if end.done():
                        raise gone()
                    yield message
