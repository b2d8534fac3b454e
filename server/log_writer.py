"""Writes the lines of the log with one bounded queue and one thread, so that no log call waits for stderr or fails with it.

stderr may be closed, full, slow, or a pipe whose reader has left. Lines that find no room or cannot be written are counted,
and the number is told in the log as soon as stderr takes a line again.
"""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

QUEUE_BYTES = 1 << 20
"""Lines that wait for stderr hold at most as much; further ones are dropped."""
LINE_BYTES = 64 * 1024
"""A longer line is cut."""
_CUT = b" [cut]"
_RETRY_S = 1.0


class LogWriter:
    """The queue and its thread, which starts with the first line: a process that logs nothing may fork."""

    def __init__(self, fd: int | None, tell_dropped: Callable[[int], bytes]) -> None:
        """`fd`: where lines go; None: nowhere. `tell_dropped`: the line that tells how many were dropped."""
        self._fd = fd
        self._tell_dropped = tell_dropped
        # Its lock is reentrant: a finaliser or a signal may log while this thread logs.
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._writing = False
        self._torn = False
        """Half a line was written when stderr failed."""
        self._thread: threading.Thread | None = None

    def put(self, line: bytes) -> None:
        """Hand over a line without its end. Never waits, never raises."""
        if len(line) > LINE_BYTES:
            line = line[: LINE_BYTES - len(_CUT)] + _CUT
        with self._changed:
            if self._fd is None or self._waiting_bytes + len(line) > QUEUE_BYTES or not self._started():
                self._dropped += 1
                return
            self._lines.append(line)
            self._waiting_bytes += len(line)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until every line was written or dropped. False: not in time."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while self._lines or self._writing:
                rest = until - time.monotonic()
                if rest <= 0:
                    return False
                self._changed.wait(rest)
        return True

    def _started(self) -> bool:
        """The thread runs; False: the system gives none."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            line, dropped = self._next()
            if dropped and not self._write(self._tell_dropped(dropped)):
                self._drop(dropped)
            if not self._write(line):
                self._drop(1)

    def _next(self) -> tuple[bytes, int]:
        with self._changed:
            self._writing = False
            self._changed.notify_all()
            while not self._lines:
                self._changed.wait()
            line = self._lines.popleft()
            self._waiting_bytes -= len(line)
            self._writing = True
            dropped, self._dropped = self._dropped, 0
            return line, dropped

    def _drop(self, lines: int) -> None:
        with self._changed:
            self._dropped += lines

    def _write(self, line: bytes) -> bool:
        """Write a line, however long stderr takes. False: it cannot be written now."""
        assert self._fd is not None, "`put` drops all lines then"
        rest = memoryview((b"\n" if self._torn else b"") + line + b"\n")
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    # Another process has made it non-blocking for all that share it.
                    select.select([], [self._fd], [], _RETRY_S)
                self._torn = bool(rest)
        except (OSError, ValueError):
            return False
        return True
