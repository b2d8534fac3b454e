"""Makes stdout and stderr safe to write to, whether they are closed, full, or of another encoding."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from server.descriptors import fill_standard_descriptors

PIPE_CLOSED = 141
"""Exit code when the reader of stdout has closed it: 128 + SIGPIPE, as shells expect."""

_PLAIN = {"–": "-", "…": "...", "“": '"', "”": '"', "→": "->", "←": "<-", "×": "x", "°": "deg ", "’": "'"}
_ERRORS = "deviceops.nearest"


def prepare() -> None:
    """Make the standard streams of this process safe to write to. Call it once, before any file is opened."""
    fill_standard_descriptors()
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = sys.stdout or _nowhere("w")
    codecs.register_error(_ERRORS, _nearest)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=_ERRORS)
    sys.stderr = Unfailing(sys.stderr or _nowhere("w"))  # pyright: ignore[reportAttributeAccessIssue]  # a stream in all that is used


def _nowhere(mode: str) -> TextIO:
    # The file stays open until the process ends.
    return open(os.devnull, mode, encoding="utf-8")  # type: ignore[return-value]


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    """The nearest text in the encoding; for a byte of a name that is not UTF-8, the byte itself."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return _PLAIN.get(character, "?"), error.start + 1


class Unfailing:
    """A text stream whose writes never raise. Text that cannot be written is lost, and the work goes on."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        """Write the text or lose it."""
        try:
            return self._inner.write(text)
        except (OSError, ValueError):
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the buffer or lose it."""
        try:
            self._inner.flush()
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def settle(exit_code: int) -> int:
    """Flush stdout. Returns the exit code; if it was 0 and the flush fails, the code of that failure."""
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
    """The message for an error of stdout (empty: its reader has closed it), and the exit code."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EPIPE, errno.EINVAL if sys.platform == "win32" else errno.EPIPE):
        return "", PIPE_CLOSED
    return f"cannot write to stdout: {getattr(error, 'strerror', None) or error}", 1


def _silence() -> None:
    """Redirect stdout to the null device, because the interpreter's last flush would report the error again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError:
        return
