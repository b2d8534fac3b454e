"""Pages of files in memory: whether they are there, and keeping them there. Reads no byte of a map.

No instruction of this process touches the mapped pages, so a file that is cut off is an error of a call and never a SIGBUS.
"""

import ctypes
import mmap
import sys
from collections.abc import Callable
from functools import cache

_FAILED = ctypes.c_void_p(-1).value


def resident_pages(address: int, size: int) -> tuple[int, int] | None:
    """How many pages of mapped memory are in RAM, and how many there are. None where the system cannot tell."""
    if (libc := _libc()) is None:
        return None
    size += address % mmap.PAGESIZE
    address -= address % mmap.PAGESIZE
    count = -(-size // mmap.PAGESIZE)
    told = ctypes.create_string_buffer(count)
    if libc.mincore(address, size, told) != 0:
        return None
    # Only the lowest bit of each byte is defined: the page is in RAM.
    return len(told.raw[:count].translate(None, _EVEN)), count


_EVEN = bytes(range(0, 256, 2))


class LockedMap:
    """A map of an open file whose pages can be locked in RAM, as far as the system allows it."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        """Where the system has no such call, nothing is mapped, and nothing is locked."""
        self._size = size_bytes
        self._libc = _libc()
        self._address = 0
        if sys.platform != "win32" and self._libc is not None and size_bytes:
            found = self._libc.mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
            self._address = 0 if found in (None, _FAILED) else found
        self.locked_bytes = 0

    def resident_bytes(self, begin: int, end: int) -> int | None:
        """Bytes of a part of the file that are in RAM, at most its size. None where the system cannot tell."""
        found = resident_pages(self._address + begin, end - begin) if self._address else None
        return None if found is None else min(found[0] * mmap.PAGESIZE, end - begin)

    def lock(self, begin: int, end: int) -> bool:
        """Keep a part in RAM until `close`, reading it if need be. `begin`: a page's begin. False: the system refuses."""
        if not self._address or self._libc is None or self._libc.mlock(self._address + begin, end - begin) != 0:
            return False
        self.locked_bytes += end - begin
        return True

    def close(self) -> None:
        """Unmap the file, which unlocks its pages."""
        if self._address and self._libc is not None:
            self._libc.munmap(self._address, self._size)
        self._address = self.locked_bytes = 0


class _Calls:
    """The calls of the C library, with their types."""

    def __init__(self, libc: ctypes.CDLL) -> None:
        pointer, word, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        self.mmap = _typed(libc.mmap, pointer, pointer, word, number, number, number, ctypes.c_long)
        self.munmap = _typed(libc.munmap, number, pointer, word)
        self.mlock = _typed(libc.mlock, number, pointer, word)
        self.mincore = _typed(libc.mincore, number, pointer, word, ctypes.c_char_p)


def _typed(call: Callable[..., int], result: type, *arguments: type) -> Callable[..., int]:
    call.restype, call.argtypes = result, arguments  # pyright: ignore[reportFunctionMemberAccess]
    return call


@cache
def _libc() -> _Calls | None:
    """None: this system has none of the calls."""
    if sys.platform == "win32":
        return None
    try:
        return _Calls(ctypes.CDLL(None, use_errno=True))
    except (AttributeError, OSError):
        return None
