"""Writes log lines through a bounded queue and one thread, so that no log call waits for stderr or fails because of it.

stderr may be closed, full, slow, or a pipe without a reader. Lines that do not fit into the queue or cannot be written are
dropped and counted; the next line that can be written reports the number.
"""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

QUEUE_BYTES = 1 << 20
"""Most bytes of the lines in the queue; further lines are dropped."""
LINE_BYTES = 64 * 1024
"""Longest line; the rest is cut."""
_CUT = b" [cut]"
_RETRY_S = 1.0


class LogWriter:
    """The queue and its thread. The thread starts with the first line, so a process that has logged nothing may fork."""

    def __init__(self, fd: int | None, tell_dropped: Callable[[int], bytes]) -> None:
        """`fd`: the destination; None: lines are discarded. `tell_dropped`: returns the line that reports dropped lines."""
        self._fd = fd
        self._tell_dropped = tell_dropped
        # The lock is reentrant: a finaliser or a signal handler may log during a log call of the same thread.
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._writing = False
        self._torn = False
        """Whether only a part of the last line was written when stderr failed."""
        self._thread: threading.Thread | None = None

    def put(self, line: bytes) -> None:
        """Queue a line, without its newline. Never waits, never raises."""
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
        """Wait until every line is written or dropped. False: `timeout_s` passed first."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while self._lines or self._writing:
                rest = until - time.monotonic()
                if rest <= 0:
                    return False
                self._changed.wait(rest)
        return True

    def _started(self) -> bool:
        """Start the thread if needed. False: the system cannot start one."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError):
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
        """Write a line, without a time limit. False: it cannot be written now."""
        assert self._fd is not None, "`put` drops all lines then"
        rest = memoryview((b"\n" if self._torn else b"") + line + b"\n")
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    # Another process has made the shared descriptor non-blocking.
                    select.select([], [self._fd], [], _RETRY_S)
                self._torn = bool(rest)
        except (OSError, ValueError):
            return False
        return True
