"""Reserves a child's stdin and stdout for frames. Imports nothing heavy, because it runs before the heavy imports."""

import os
import sys

PIPE_BYTES = 1024 * 1024
"""Requested capacity of a pipe. With Linux's default of 64 KiB, a picture needs dozens of writes."""

_taken: list[tuple[int, int]] = []


def protect_stdout() -> tuple[int, int]:
    """Take stdin and stdout for frames, and replace them by the null device and stderr for all other code.

    Call it before heavy imports: afterwards no print and no native library can write into the frames, and no prompt can
    read from them. The descriptors are binary, and child processes do not inherit them, so the pipe ends with this
    process.

    Returns:
        (in_fd, out_fd).

    Raises:
        RuntimeError: a second call, which would return stderr as the pipe.
    """
    if _taken:
        raise RuntimeError(f"stdin and stdout are taken already, as the descriptors {_taken[0]}")
    in_fd, out_fd = os.dup(0), os.dup(1)
    _taken.append((in_fd, out_fd))
    _point(0, os.open(os.devnull, os.O_RDONLY))
    _point(1, _stderr_or_null())
    if sys.platform == "win32":
        _set_binary(in_fd, out_fd)
    else:
        widen(out_fd)
    return in_fd, out_fd


def _point(fd: int, at: int) -> None:
    """Make `fd` a duplicate of `at`, and close `at`."""
    os.dup2(at, fd)
    os.close(at)


def _stderr_or_null() -> int:
    try:
        return os.dup(2)
    except OSError:  # the process has no stderr, as some services
        return os.open(os.devnull, os.O_WRONLY)


def _set_binary(*fds: int) -> None:
    """Set descriptors to binary mode: otherwise the C runtime of Windows writes each newline byte as two bytes."""
    if sys.platform == "win32":
        import msvcrt

        for fd in fds:
            msvcrt.setmode(fd, os.O_BINARY)


def widen(fd: int) -> None:
    """Set a pipe's capacity to `PIPE_BYTES` if the system allows it."""
    if sys.platform == "linux":
        import fcntl

        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            return  # a socket, a file, or no pipe memory left for the user: works as it is, with more writes
