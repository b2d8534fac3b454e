"""The operations of every tier on the bytes of a blob."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from domains.memory.blobs.blob import Blob

PIECE_BYTES = 1024 * 1024
"""Size of the pieces in which bytes are read, written and copied."""

Result = TypeVar("Result")


class Content(Protocol):
    """The bytes of one blob, open for reading. One read at a time."""

    async def read(self, offset: int, size: int, then: Callable[[bytes], Result]) -> Result:
        """Read a piece inside the blob off the event loop and call `then` with it, mostly on the reading thread."""
        ...

    def close(self) -> None:
        """Close. To be called once, when no read runs."""
        ...


class ReadableBytes(Protocol):
    """One tier."""

    async def open(self, blob: Blob) -> Content:
        """Open a blob for reading. Raises why it is unreadable: BLOB_CORRUPT, `ContentLost`, DEVICE_LOST."""
        ...

    def free(self, blob: Blob) -> None:
        """Free the memory. Does nothing for a blob without memory."""
        ...


class TierBytes(ReadableBytes, Protocol):
    """One tier whose bytes the server writes itself."""

    async def allocate(self, blob: Blob, alignment: int) -> None:
        """Allocate the memory of all bytes now. `alignment`: of the start address; 0: the default of the memory."""
        ...

    async def write(self, blob: Blob, offset: int, data: bytes) -> None:
        """Write a piece inside the blob."""
        ...


async def read_all(content: Content, begin: int, end: int, then: Callable[[bytes], object]) -> None:
    """Read a range piece by piece and call `then` with each piece."""
    for offset in range(begin, end, PIECE_BYTES):
        await content.read(offset, min(PIECE_BYTES, end - offset), then)


async def to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` to its end even if the caller is cancelled meanwhile.

    A writing thread cannot be stopped, and must have ended before the next writer begins.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise  # `shield` has retrieved an exception of the work, so that asyncio does not log it
