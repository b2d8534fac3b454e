"""Ends the workers with the server, even if the server is killed. Imports nothing heavy."""

import ctypes
import os
import select
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
"""Size of JOBOBJECT_EXTENDED_LIMIT_INFORMATION on 64-bit Windows, and the offset of BasicLimitInformation.LimitFlags."""


def take_children_along() -> None:
    """Called in the server before it starts a process. Raises OSError.

    Windows: the server joins a job object, and its children belong to it too. The system kills a job's processes when the
    last handle closes, and this process has the only one. Other systems: does nothing, see `end_with_parent`.
    """
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateJobObjectW.restype = kernel.GetCurrentProcess.restype = wintypes.HANDLE
        limits = (ctypes.c_ubyte * _EXTENDED_LIMITS_BYTES)()
        wintypes.DWORD.from_buffer(limits, _LIMIT_FLAGS_AT).value = _KILL_ON_JOB_CLOSE
        # Never closed here: the end of the process closes it.
        job = wintypes.HANDLE(kernel.CreateJobObjectW(None, None))
        if (
            not job
            or not kernel.SetInformationJobObject(job, _EXTENDED_LIMITS, ctypes.byref(limits), _EXTENDED_LIMITS_BYTES)
            or not kernel.AssignProcessToJobObject(job, wintypes.HANDLE(kernel.GetCurrentProcess()))
        ):
            raise ctypes.WinError(ctypes.get_last_error())


def leave_no_core_dump() -> None:
    """Called in the server before it starts a process; the workers inherit it. A core dump would contain prompts and
    pictures.

    Linux writes no file for a limit of 1 byte, and sends nothing to a program that `core_pattern` names, as it would for
    a limit of 0 (core(5)). Windows: does nothing, its error reports are an opt-in of the system.
    """
    if sys.platform != "win32":
        import resource

        most = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (most if 0 <= most < 1 else 1, most))


def end_with_parent(link: int | None = None) -> None:
    """Called in a worker before anything else. Linux: the kernel kills the worker when the server dies, even while a device
    call hangs. Other systems: the job object or the end of the pipe ends the worker.

    `link`: a descriptor whose other end the server alone has. The kernel does not report a death before this call,
    so the process exits here if that end is closed.

    Also ignores SIGINT and SIGTERM: a terminal sends SIGINT to all of its processes, and systemd SIGTERM to all processes
    of a service. The server handles them: it lets the worker's jobs end, and then kills the worker.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
        if link is not None and _closed(link):
            os._exit(1)


def _closed(link: int) -> bool:
    """Whether the other end of a pipe or socket is closed."""
    assert sys.platform == "linux"
    poll = select.poll()
    poll.register(link, 0)
    return bool(poll.poll(0))


@contextmanager
def adopting() -> Generator[None]:
    """Called in the server, on Linux: while the block runs, the kernel gives orphaned descendants to the server as children.

    Keep the block short: the server never waits for an orphan that it does not expect. Raises `OSError`.
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
