"""Writes whole frames to a blocking descriptor."""

import os
import sys

_JOIN_BYTES = 64 * 1024  # up to this, one copy is cheaper than a second system call


def write_all(fd: int, *pieces: bytes) -> None:
    """Write all bytes of the pieces in order, without a copy of a large piece. Raises `OSError`."""
    if sum(map(len, pieces)) <= _JOIN_BYTES:
        pieces = (b"".join(pieces),)
    rest = [memoryview(piece) for piece in pieces if piece]
    while rest:
        written = _write_some(fd, rest)
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if written:
            rest[0] = rest[0][written:]


def _write_some(fd: int, pieces: list[memoryview]) -> int:
    if sys.platform == "win32":
        return os.write(fd, pieces[0])
    return os.writev(fd, pieces)
