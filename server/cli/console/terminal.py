"""Lets commands outlive the terminal that they were started from."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator


@contextlib.contextmanager
def outliving_terminal() -> Generator[None]:
    """While the block runs, the end of the terminal (SIGHUP: a closed window, a lost ssh) does not end the command."""
    number = getattr(signal, "SIGHUP", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)
