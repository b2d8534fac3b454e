"""The two file descriptors of a child, taken away from everybody else. Imports nothing heavy: it runs before that."""

import os
import sys

PIPE_BYTES = 1024 * 1024
"""What a pipe is widened to hold where the system allows it: with Linux's 64 KiB a picture takes dozens of turns."""

_taken: list[tuple[int, int]] = []


def protect_stdout() -> tuple[int, int]:
    """Take stdin and stdout for frames, and give everybody else null and stderr in their place.

    Call it before anything heavy is imported: from then on no print and no native library can write into the frames,
    and no prompt can read from them. The descriptors are binary, and not inherited by processes started later, so that
    the pipe ends with this process.

    Returns:
        (in_fd, out_fd).

    Raises:
        RuntimeError: it was called before; the second caller would get stderr for the pipe.
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
    """Make `fd` mean what `at` means, and close `at`."""
    os.dup2(at, fd)
    os.close(at)


def _stderr_or_null() -> int:
    try:
        return os.dup(2)
    except OSError:  # started without a stderr, as services are
        return os.open(os.devnull, os.O_WRONLY)


def _set_binary(*fds: int) -> None:
    """Without it the C runtime of Windows turns each newline byte of a frame into two."""
    if sys.platform == "win32":
        import msvcrt

        for fd in fds:
            msvcrt.setmode(fd, os.O_BINARY)


def widen(fd: int) -> None:
    """Make a pipe hold `PIPE_BYTES`, where the system allows it."""
    if sys.platform == "linux":
        import fcntl

        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            return  # a socket, a file, or the user's share of pipe memory is used up: it works as it is, in more turns
