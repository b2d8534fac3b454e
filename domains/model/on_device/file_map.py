"""A weight file mapped read-only and registered with CUDA piece by piece, so that the device copies out of the page cache.

No instruction of this process reads the map: the driver pins a piece's pages or refuses to, and the device reads pinned
pages. So a truncated file or a failing disk makes the driver refuse, and never raises SIGBUS. The caller then reads the
piece with `preadv`, whose error is typed, and checks at the end that the file has not changed.
"""

import mmap
import os
import sys
import threading
import warnings
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from domains.model.page_cache import resident_pages

PIECE = 128 * 1024 * 1024
"""Bytes of a piece. The driver needs 3 ms to pin it, the bus 2.4 ms to copy it; smaller pieces wait more for its locks."""
_READ_ONLY = 8
"""cudaHostRegisterReadOnly: the map cannot be written."""
_SAMPLED = 8 * 1024 * 1024
"""Bytes between two pages that are checked for being cached. Each check waits for the interpreter's lock."""
_CHUNK = 8 * 1024 * 1024
_REGISTERING = threading.Lock()
"""One thread registers at a time: two would slow each other, and the thread that enqueues copies, more than they gain."""


class Driver(Protocol):
    """The calls to CUDA's runtime. Any thread."""

    def register(self, address: int, size: int) -> bool:
        """Pin host memory for the device. False: the driver refuses."""
        ...

    def unregister(self, address: int) -> None:
        """Unpin memory that `register` pinned."""
        ...


class CudaDriver:
    """See `Driver`."""

    def register(self, address: int, size: int) -> bool:
        with _REGISTERING:
            return int(_runtime().cudaHostRegister(address, size, _READ_ONLY)) == 0

    def unregister(self, address: int) -> None:
        _runtime().cudaHostUnregister(address)


def _runtime() -> Any:
    """CUDA's runtime, as torch has loaded it."""
    return torch.cuda.cudart()


class FileMap:
    """The map of one open file. Close it when no copy reads it any more."""

    def __init__(self, descriptor: int, size_bytes: int, driver: Driver) -> None:
        """`size_bytes`: the file's size as its header was checked. The map outlives the descriptor."""
        self.descriptor = os.dup(descriptor)
        self._driver = driver
        self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        with warnings.catch_warnings():
            # torch warns that the memory is read-only; nothing writes to it.
            warnings.simplefilter("ignore")
            self.bytes: Tensor = torch.from_numpy(np.frombuffer(self._map, dtype=np.uint8))
        self._registered: set[int] = set()
        self._closed = False
        self._whole = len(self.bytes) == size_bytes

    def piece(self, number: int) -> Tensor:
        """The bytes of a registered piece, for copies by the device alone."""
        return self.bytes[number * PIECE : (number + 1) * PIECE]

    def registered(self, piece: int) -> bool:
        """Whether the device can read a piece already."""
        return piece in self._registered

    @property
    def pinned_bytes(self) -> int:
        """Bytes of the page cache that the registered pieces hold in RAM."""
        return sum(min(PIECE, len(self.bytes) - piece * PIECE) for piece in self._registered)

    def register(self, piece: int) -> bool:
        """Make a piece readable for the device; reads it from disk if need be. False: the driver refuses. Any thread."""
        if piece in self._registered:
            return True
        if not self._whole:
            return False
        begin, end = piece * PIECE, min((piece + 1) * PIECE, len(self.bytes))
        if not _cached(self.descriptor, begin, end):
            _fetch(self.descriptor, begin, end)
        pages = -(-(end - begin) // mmap.PAGESIZE) * mmap.PAGESIZE
        if not self._driver.register(self.bytes.data_ptr() + begin, pages):
            return False
        self._registered.add(piece)
        return True

    def __del__(self) -> None:
        # Memory that is unmapped while it is registered makes the driver refuse what is mapped there next.
        with suppress(Exception):
            self.close()

    def close(self) -> None:
        """Give everything back. The device must have finished all copies."""
        if self._closed:
            return
        self._closed = True
        while self._registered:
            self._driver.unregister(self.bytes.data_ptr() + self._registered.pop() * PIECE)
        self.bytes = torch.empty(0, dtype=torch.uint8)
        os.close(self.descriptor)


def resident(address: int, size: int) -> bool:
    """Whether all pages of mapped memory are in the page cache. False where the system cannot tell."""
    there, pages = resident_pages(address, size) or (0, 1)
    return there == pages


def _cached(descriptor: int, begin: int, end: int) -> bool:
    """Whether a part of the file is probably in the page cache: a page of each 8 MiB is. False if the system cannot tell."""
    if sys.platform != "linux":
        return False
    page = bytearray(1)
    try:
        return all(os.preadv(descriptor, [page], at, os.RWF_NOWAIT) for at in range(begin, end, _SAMPLED))
    except OSError:
        return False


def _fetch(descriptor: int, begin: int, end: int) -> None:
    """Read a part of the file into the page cache: faults of the map would read it in small parts. Errors come later."""
    if sys.platform == "win32":
        return
    scratch = bytearray(min(_CHUNK, end - begin))
    try:
        while begin < end and (size := os.preadv(descriptor, [scratch], begin)):
            begin += size
    except OSError:
        return
