"""What every tier can do with the bytes of a blob, whichever memory it is."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from domains.memory.blobs.blob import Blob

PIECE_BYTES = 1024 * 1024
"""What is read, written or copied at once."""

Result = TypeVar("Result")


class Content(Protocol):
    """The bytes of one blob, open for reading. Reads come one after the other."""

    async def read(self, offset: int, size: int, then: Callable[[bytes], Result]) -> Result:
        """A piece inside the blob, read off the event loop and handed to `then` where it was read (a thread, mostly)."""
        ...

    def close(self) -> None:
        """Once, when no read runs any more."""
        ...


class ReadableBytes(Protocol):
    """One tier."""

    async def open(self, blob: Blob) -> Content:
        """To read it. Raises what makes it unreadable: BLOB_CORRUPT, `ContentLost`, DEVICE_LOST."""
        ...

    def free(self, blob: Blob) -> None:
        """Give the memory back. Of a blob that has none: nothing."""
        ...


class TierBytes(ReadableBytes, Protocol):
    """One tier whose bytes the server writes itself."""

    async def allocate(self, blob: Blob, alignment: int) -> None:
        """Take the memory for all its bytes now. `alignment` of the start address; 0: what suits."""
        ...

    async def write(self, blob: Blob, offset: int, data: bytes) -> None:
        """A piece inside the blob."""
        ...


async def read_all(content: Content, begin: int, end: int, then: Callable[[bytes], object]) -> None:
    """All bytes of a stretch, piece by piece, each handed to `then`."""
    for offset in range(begin, end, PIECE_BYTES):
        await content.read(offset, min(PIECE_BYTES, end - offset), then)


async def to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Do it to its end even if the caller is cancelled meanwhile: a thread that writes cannot be stopped, and must not
    write any more when the next one may."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # told to nobody: the caller has gone
        raise
