"""Work that a pool of threads refuses is never done."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from domains.threads import ThreadPool


@contextmanager
def busy(pool: ThreadPool) -> Generator[None]:
    """One thread of the pool runs and is not free."""
    begun, free = threading.Event(), threading.Event()
    running = pool.submit(lambda: (begun.set(), free.wait(10)))
    assert begun.wait(10)
    try:
        yield
    finally:
        free.set()
        running.result(10)


def no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_work_that_was_refused_is_never_done(monkeypatch: pytest.MonkeyPatch) -> None:
    done = list[str]()
    with ThreadPool(2) as pool:
        with busy(pool), monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.submit(done.append, "refused")
        pool.submit(done.append, "later").result(10)
    assert done == ["later"]


def test_work_that_a_thread_has_begun_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that is busy becomes free while the system refuses another one."""
    with ThreadPool(2) as pool:
        begun, free, first = threading.Event(), threading.Event(), threading.Event()
        pool.submit(free.wait, 10)

        def taken_meanwhile(*_: object) -> None:
            free.set()
            assert begun.wait(10)
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", taken_meanwhile)
            work = pool.submit(lambda: (begun.set(), first.wait(10)))
        first.set()
        assert work.result(10) == (None, True)


def test_errors_results_and_cancellations_pass() -> None:
    with ThreadPool(1) as pool:
        assert pool.submit(int, "7").result(10) == 7
        with pytest.raises(ValueError, match="invalid literal"):
            pool.submit(int, "seven").result(10)
        with busy(pool):
            waiting = pool.submit(int, "8")
            assert waiting.cancel()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int, "9")
