"""The tier HOST: anonymous pages of this process. They are returned to the system when the blob is freed."""

import asyncio
import ctypes
import mmap
import os
from collections.abc import Callable
from typing import TypeVar

from domains.amounts import compared
from domains.device.cgroup import host_memory
from domains.errors import ErrorReason, ResourceExhausted
from domains.memory.blobs.blob import Blob
from domains.memory.measure import not_told

Result = TypeVar("Result")

_memset = ctypes.CDLL("msvcrt" if os.name == "nt" else None).memset


class HostBytes:
    """The tier HOST."""

    def __init__(self) -> None:
        self._memory: dict[str, memoryview] = {}

    async def allocate(self, blob: Blob, alignment: int) -> None:
        """Allocate and touch all pages: untouched pages would count as free and be granted twice.

        HOST_OUT_OF_MEMORY if the system, or this container, has too few; DRIVER_ERROR if it does not report them.
        """
        try:
            host = host_memory()
        except OSError as error:
            raise not_told("host", error) from error
        available = max(0, host.total_bytes - host.used_bytes)
        if blob.size_bytes > available:
            raise _no_room(blob.size_bytes, available)
        try:
            pages = aligned_pages(blob.size_bytes, alignment or 1)
        except (OSError, MemoryError, OverflowError) as error:
            raise _no_room(blob.size_bytes, available) from error
        await _on_thread(pages, _touch)
        self._memory[blob.id] = pages

    async def write(self, blob: Blob, offset: int, data: bytes) -> None:
        """Write a piece inside the blob."""

        def write(memory: memoryview) -> None:
            memory[offset : offset + len(data)] = data

        await _on_thread(self._memory[blob.id], write)

    async def open(self, blob: Blob) -> "HostContent":
        """Open the blob for reading."""
        return HostContent(self._memory[blob.id])

    def free(self, blob: Blob) -> None:
        """Free the pages when the last read of them has ended."""
        self._memory.pop(blob.id, None)


class HostContent:
    """The pages of one blob."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    async def read(self, offset: int, size: int, then: Callable[[bytes], Result]) -> Result:
        """Read a piece, as a copy."""
        return await _on_thread(self._memory, lambda memory: then(bytes(memory[offset : offset + size])))

    def close(self) -> None:
        """Release the pages."""
        self._memory = memoryview(b"")


def aligned_pages(size: int, alignment: int) -> memoryview:
    """Zeroed anonymous memory, `size` bytes, that starts at a multiple of `alignment` (a power of two)."""
    spare = alignment if alignment > mmap.PAGESIZE else 0
    pages = mmap.mmap(-1, max(size + spare, mmap.PAGESIZE))
    start = -address_of(pages) % alignment
    return memoryview(pages)[start : start + size]


async def _on_thread(memory: memoryview, work: Callable[[memoryview], Result]) -> Result:
    """Call `work` with the pages on a thread.

    The thread drops its reference to the pages before it returns: a pool thread keeps its last call alive, and with it the
    pages of a blob that is deleted next.
    """
    lent = [memory]
    return await asyncio.to_thread(lambda: work(lent.pop()))


def _touch(memory: memoryview) -> None:
    """Write every page, so that the system allocates it. A call through `CDLL` releases the GIL."""
    if memory:
        _memset(ctypes.c_void_p(address_of(memory)), 0, ctypes.c_size_t(memory.nbytes))


def address_of(memory: mmap.mmap | memoryview) -> int:
    """The address of writable memory."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _no_room(needed: int, available: int) -> ResourceExhausted:
    need, there = compared(needed, available)
    return ResourceExhausted(
        f"{need} of host memory are needed and {there} are available; delete blobs or use the tier DISK",
        ErrorReason.HOST_OUT_OF_MEMORY,
        needed_bytes=needed,
        available_bytes=available,
    )
