"""Stdout, stderr and the descriptors below them, made fit before anything is written: closed, full, or of any encoding."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

PIPE_CLOSED = 141
"""Exit code when the reader of stdout has left: 128 + SIGPIPE, as shells expect."""

_PLAIN = {"–": "-", "…": "...", "“": '"', "”": '"', "→": "->", "←": "<-", "×": "x", "°": "deg ", "’": "'"}
_ERRORS = "deviceops.nearest"


def prepare() -> None:
    """Make the standard streams of this process safe to write to. Call it once, before anything is opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Without this, the next file or socket would get the number of a closed stream, and its output with it.
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = sys.stdout or _nowhere("w")
    codecs.register_error(_ERRORS, _nearest)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=_ERRORS)
    sys.stderr = Unfailing(sys.stderr or _nowhere("w"))  # pyright: ignore[reportAttributeAccessIssue]  # a stream in all that is used


def _nowhere(mode: str) -> TextIO:
    # Stays open as long as the process.
    return open(os.devnull, mode, encoding="utf-8")  # type: ignore[return-value]


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    """The nearest text that the encoding has; of a name that is not UTF-8, its own byte."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return _PLAIN.get(character, "?"), error.start + 1


class Unfailing:
    """A text stream whose writes never raise: what a person would have read is lost, and the work goes on."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        try:
            return self._inner.write(text)
        except (OSError, ValueError):
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, or lose what is buffered."""
        try:
            self._inner.flush()
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def settle(exit_code: int) -> int:
    """Write out what is buffered. Returns the exit code, which tells of a failure if nothing else went wrong."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        _silence()
        if exit_code:
            return exit_code
        message, exit_code = loss(error)
        if message:
            print(f"deviceops: {message}", file=sys.stderr)
    return exit_code


def loss(error: OSError | ValueError) -> tuple[str, int]:
    """Why stdout could not be written, for people (empty: its reader has left), and the exit code that says so."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EPIPE, errno.EINVAL if sys.platform == "win32" else errno.EPIPE):
        return "", PIPE_CLOSED
    return f"cannot write to stdout: {getattr(error, 'strerror', None) or error}", 1


def _silence() -> None:
    """Let the interpreter's own last flush, which would complain again, go nowhere."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError:
        return
