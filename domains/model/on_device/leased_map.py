"""Uses the pages of a weight file as the weights, without a copy: on CPUs under Linux.

A mapped file that is truncated kills its reader with SIGBUS, and one that is written to changes the weights. So a file is
mapped under a read lease (fcntl F_SETLEASE) only: the system then lets no process open the file for writing, or truncate
it, before this process has agreed. This process receives SIGIO, reads the file into private memory, puts that in the place
of the map, and agrees; tensors keep their addresses and values. Without a lease (files of another user, an open writer,
network disks, other systems) the weights are read into memory of their own.
"""

import ctypes
import mmap
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import numpy as np
import structlog
import torch
from torch import Tensor

from domains.model.weight_file import WeightFile

_log = structlog.get_logger()

_MAY_MOVE, _FIXED = 1, 2
"""Flags of mremap."""
_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True)
class _Lease:
    """A map that a lease protects."""

    address: int
    size: int


_leases: dict[int, _Lease] = {}
"""By descriptor, which holds the lease until it is closed."""


def leased_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors that lie in maps which a lease protects: they are pages of a file, and no copy."""
    leases = list(_leases.values())
    if not leases:
        return 0
    return sum(
        one.nbytes
        for one in tensors
        if any(lease.address <= one.data_ptr() < lease.address + lease.size for lease in leases)
    )


if sys.platform == "linux":
    import fcntl

    def mapped(file: WeightFile) -> Tensor | None:
        """The bytes of a file, which stay as they are now; None: read it. Changing them changes no file.

        Only for the main thread, which signals interrupt.
        """
        if threading.current_thread() is not threading.main_thread():
            return None
        try:
            # Opened once more: a lease belongs to the opening, and another load may use this one.
            descriptor = os.open(f"/proc/self/fd/{file.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            _listen()
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_size != file.size_bytes:
            _end(descriptor)
            return None
        pages = np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY), dtype=np.uint8)
        _leases[descriptor] = _Lease(pages.ctypes.data, pages.nbytes)
        weakref.finalize(pages, _release, descriptor)
        _agree()  # to a writer that came before the lease was noted
        return torch.from_numpy(pages)

    def _release(descriptor: int) -> None:
        """End a lease: its map is gone, or private."""
        if _leases.pop(descriptor, None) is not None:
            _end(descriptor)

    def _end(descriptor: int) -> None:
        # Closing does not end the lease while the map has the file open. The system may have revoked it: that is no error.
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(descriptor)

    @cache
    def _listen() -> None:
        """Take the signal from now on; without a handler it would end the process."""
        signal.signal(signal.SIGIO, lambda number, frame: _agree())

    def _agree() -> None:
        """Make every map private whose lease the system wants back, and give it back."""
        for descriptor, lease in list(_leases.items()):
            if fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
                _make_private(descriptor, lease)
                _release(descriptor)

    def _make_private(descriptor: int, lease: _Lease) -> None:
        """Put private memory with the file's bytes in the place of its map, at the same address."""
        libc = _libc()
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        address = libc.mmap(None, lease.size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        if address == _FAILED:
            _log.error("no memory for a private copy of weights that are about to change", size_bytes=lease.size)
            return
        ctypes.memmove(address, lease.address, lease.size)
        if libc.mremap(address, lease.size, lease.size, _MAY_MOVE | _FIXED, ctypes.c_void_p(lease.address)) == _FAILED:
            _log.error("weights that are about to change could not be copied", errno=ctypes.get_errno())

    @cache
    def _libc() -> ctypes.CDLL:
        libc = ctypes.CDLL(None, use_errno=True)
        word, number = ctypes.c_size_t, ctypes.c_int
        libc.mmap.argtypes = [ctypes.c_void_p, word, number, number, number, ctypes.c_long]
        libc.mmap.restype = ctypes.c_void_p
        # The fifth argument is variadic.
        libc.mremap.argtypes = [ctypes.c_void_p, word, word, number, ctypes.c_void_p]
        libc.mremap.restype = ctypes.c_void_p
        return libc

else:

    def mapped(file: WeightFile) -> Tensor | None:
        """None: this system grants no leases."""
        return None
