"""Looking at processes from outside, as an operator would."""

import os
import time
from collections.abc import Callable

import psutil


def kill(pid: int) -> None:
    """SIGKILL, by id."""
    os.kill(pid, 9)


def gone(pid: int) -> bool:
    """Whether nothing runs under this id (a zombie runs nothing)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def eventually(true: Callable[[], bool], within_s: float = 60.0) -> float:
    """Wait for something that no stream tells of; how long it took. For death and birth of processes only."""
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < within_s, f"not within {within_s} s"
        time.sleep(0.02)
    return time.monotonic() - begin
