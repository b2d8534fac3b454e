"""Turns all other output on stderr into log lines: native libraries, child processes, Python's own tracebacks.

Descriptor 2 becomes a pipe, which a thread reads without pause. So a worker never waits for the reader of the server's
stderr. Not on Windows.
"""

import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from server.descriptors import fill_standard_descriptors
from server.log_writer import LINE_BYTES
from server.stdio.pipe import widen

_STDERR = 2
_LAST_WORDS_S = 1.0
_READ_BYTES = 64 * 1024


def own_standard_descriptors() -> bool:
    """Fill the closed standard descriptors. Returns whether 2 is stderr or null; False: it is another file already."""
    try:
        os.fstat(_STDERR)
    except OSError:
        ours = True
    else:
        ours = sys.stderr is not None
    fill_standard_descriptors()
    return ours


@contextmanager
def captured(fd: int, take: Callable[[bytes], None]) -> Generator[None]:
    """Pass each line that is written to descriptor 2 to `take` while the block runs. `fd`: descriptor 2 afterwards."""
    read, write = os.pipe()
    widen(write)
    os.dup2(write, _STDERR)
    os.close(write)
    reader = threading.Thread(target=_read, args=(read, take), name="stderr-reader", daemon=True)
    try:
        reader.start()
        yield
    finally:
        # The pipe ends when its last writer closes it, and a child that outlives this process still has it open.
        os.dup2(fd, _STDERR)
        if reader.ident is None:
            os.close(read)  # the system could start no thread
        else:
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
