"""What other code writes to stderr becomes lines of the log: native libraries, child processes, tracebacks of Python itself.

Descriptor 2 becomes a pipe, and a thread that always reads it hands each line over. So a worker never waits for the reader
of the server's stderr either. Not on Windows.
"""

import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from server.log_writer import LINE_BYTES
from server.stdio.pipe import widen

_STDERR = 2
_LAST_WORDS_S = 1.0
_READ_BYTES = 64 * 1024


def own_standard_descriptors() -> bool:
    """Give 0, 1 and 2 to the null device where they are closed: a file that is opened later must not get such a number.

    Returns whether 2 is stderr or null; False: it is another file already.
    """
    for number in (0, 1, _STDERR):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken.
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == number:
                os.set_inheritable(number, True)
            elif opened > _STDERR:
                os.close(opened)
        else:
            if number == _STDERR and sys.stderr is None:
                return False
    return True


@contextmanager
def captured(fd: int, take: Callable[[bytes], None]) -> Generator[None]:
    """While the block runs, each line that is written to descriptor 2 is given to `take`. `fd`: what 2 is afterwards."""
    read, write = os.pipe()
    widen(write)
    os.dup2(write, _STDERR)
    os.close(write)
    reader = threading.Thread(target=_read, args=(read, take), name="stderr-reader", daemon=True)
    reader.start()
    try:
        yield
    finally:
        # The pipe ends with its last writer; a child that is left over must not hold up the end.
        os.dup2(fd, _STDERR)
        reader.join(_LAST_WORDS_S)


def _read(fd: int, take: Callable[[bytes], None]) -> None:
    rest = b""
    with suppress(OSError):
        while chunk := os.read(fd, _READ_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                take(line)
            if len(rest) >= LINE_BYTES:
                take(rest)
                rest = b""
    if rest:
        take(rest)
    os.close(fd)
