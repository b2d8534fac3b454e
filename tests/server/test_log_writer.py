"""The log's queue: bounded, never in the way, and honest about what it dropped."""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from server.log_writer import LINE_BYTES, QUEUE_BYTES, LogWriter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's pipes, /dev/full")

_FLUSH_S = 30.0
_PAGE = 4096


def told(dropped: int) -> bytes:
    return f"dropped {dropped}".encode()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds a page."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PAGE)
    yield read, write
    for descriptor in (read, write):
        os.close(descriptor)


def read_until(read: int, wanted: bytes) -> list[bytes]:
    """All lines up to the wanted one."""
    data = b""
    while wanted not in data.splitlines():
        chunk = os.read(read, 1 << 16)
        assert chunk
        data += chunk
    return data.splitlines()


def test_lines_come_in_order(pipe: tuple[int, int]) -> None:
    read, write = pipe
    writer = LogWriter(write, told)
    for number in range(100):
        writer.put(b"%d" % number)
    assert read_until(read, b"99") == [b"%d" % number for number in range(100)]
    assert writer.flush(_FLUSH_S)


def test_a_reader_that_stands_still_costs_no_time_and_bounded_memory_and_is_told_what_is_missing(
    pipe: tuple[int, int],
) -> None:
    read, write = pipe
    writer = LogWriter(write, told)
    line, count = b"x" * 1000, 5000
    begin = time.perf_counter()
    for _ in range(count):
        writer.put(line)
    assert time.perf_counter() - begin < 2.0
    assert not writer.flush(0.01)
    kept = QUEUE_BYTES // len(line)
    # The reader is back: the first line that is put now comes behind all that were kept.
    lines = os.read(read, 1 << 16)
    while lines.count(b"x\n") < kept:
        lines += os.read(read, 1 << 16)
    writer.put(b"the last")
    lines += b"\n".join(read_until(read, b"the last"))
    told_lines = [int(one.split()[1]) for one in lines.splitlines() if one.startswith(b"dropped")]
    assert lines.count(line) + sum(told_lines) == count
    assert sum(told_lines) > 0


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def read_only() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def left() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize("opened", [full, read_only, left])
def test_what_could_not_be_written_is_told_when_it_can(opened: Callable[[], int]) -> None:
    broken = opened()
    writer = LogWriter(broken, told)
    for _ in range(7):
        writer.put(b"lost")
    assert writer.flush(_FLUSH_S)
    read, write = os.pipe()
    # The same descriptor, which takes lines again.
    os.dup2(write, broken)
    writer.put(b"the first that is kept")
    assert read_until(read, b"the first that is kept") == [b"dropped 7", b"the first that is kept"]
    for descriptor in (read, write, broken):
        os.close(descriptor)


def test_a_long_line_is_cut(pipe: tuple[int, int]) -> None:
    read, write = pipe
    writer = LogWriter(write, told)
    writer.put(b"y" * (2 * LINE_BYTES))
    writer.put(b"next")
    first, _ = read_until(read, b"next")
    assert len(first) == LINE_BYTES
    assert first.endswith(b"[cut]")


def test_no_descriptor_at_all_is_no_error() -> None:
    writer = LogWriter(None, told)
    writer.put(b"nowhere")
    assert writer.flush(0)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_line_that_gets_no_thread_is_told_as_dropped_by_the_next(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise error

    read, write = pipe
    writer = LogWriter(write, told)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        writer.put(b"lost")
    writer.put(b"kept")
    assert read_until(read, b"kept") == [told(1), b"kept"]


def test_a_process_that_has_logged_nothing_has_no_thread() -> None:
    before = threading.active_count()
    LogWriter(2, told)
    assert threading.active_count() == before
