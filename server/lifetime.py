"""No worker outlives the server, however that ends, and a worker ends when the server says so. Imports nothing heavy."""

import ctypes
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager

if sys.platform == "win32":
    from ctypes import wintypes

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SIGKILL = 9
_EXTENDED_LIMITS = 9
_KILL_ON_JOB_CLOSE = 0x2000
_EXTENDED_LIMITS_BYTES, _LIMIT_FLAGS_AT = 144, 16
"""JOBOBJECT_EXTENDED_LIMIT_INFORMATION of 64-bit Windows, and where its BasicLimitInformation.LimitFlags lies."""


def take_children_along() -> None:
    """In the server, before it starts anybody. Windows: it joins a job that the system ends with its last handle, which is
    this process's, and all that it starts are born into that. Elsewhere nothing: see `end_with_parent`. Raises OSError.
    """
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateJobObjectW.restype = kernel.GetCurrentProcess.restype = wintypes.HANDLE
        limits = (ctypes.c_ubyte * _EXTENDED_LIMITS_BYTES)()
        wintypes.DWORD.from_buffer(limits, _LIMIT_FLAGS_AT).value = _KILL_ON_JOB_CLOSE
        # Never closed: it closes with the process.
        job = wintypes.HANDLE(kernel.CreateJobObjectW(None, None))
        if (
            not job
            or not kernel.SetInformationJobObject(job, _EXTENDED_LIMITS, ctypes.byref(limits), _EXTENDED_LIMITS_BYTES)
            or not kernel.AssignProcessToJobObject(job, wintypes.HANDLE(kernel.GetCurrentProcess()))
        ):
            raise ctypes.WinError(ctypes.get_last_error())


def end_with_parent() -> None:
    """In a worker, first of all. Linux: it is killed when the server is, even while a device call hangs. Elsewhere the job
    or the end of its pipe has to do.

    A terminal tells Ctrl-C to every process in it, and systemd a SIGTERM to every process of a service. They are for the
    server, which lets the worker's jobs end, and then kills it.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)


@contextmanager
def adopting() -> Generator[None]:
    """In the server, on Linux: while the block runs, the kernel makes each orphan among its descendants a child of it.

    Only for a moment: an orphan that is not expected would stay a zombie. Raises `OSError`.
    """
    _set_subreaper(1)
    try:
        yield
    finally:
        _set_subreaper(0)


def _set_subreaper(on: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, on, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
