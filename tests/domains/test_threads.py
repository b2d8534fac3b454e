"""Work that a pool of threads refuses is never done, and a thread that dies before it begins stops nobody."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from domains.threads import ThreadPool, bounded_starts


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


def test_a_shutdown_cancels_what_waits() -> None:
    pool = ThreadPool(1)
    with busy(pool):
        waiting = pool.submit(int, "8")
        pool.shutdown(wait=False, cancel_futures=True)
        assert waiting.cancelled()


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


class Dying(threading.Thread):
    """Dies before it begins, as one that gets no memory for its first call."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def _bootstrap(self) -> None:
        raise self._error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_thread_that_gets_no_memory_to_begin_is_refused() -> None:
    with bounded_starts(), pytest.raises(MemoryError):
        Dying(MemoryError()).start()


def test_a_thread_that_dies_without_a_word_is_refused_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domains.threads._BEGIN_S", 0.01)
    with bounded_starts(), pytest.raises(MemoryError):
        Dying(SystemExit()).start()


def test_the_next_threads_that_die_hold_their_callers_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domains.threads._BEGIN_S", 0.01)
    with bounded_starts():
        with pytest.raises(MemoryError):
            Dying(SystemExit()).start()
        monkeypatch.setattr("domains.threads._BEGIN_S", 10.0)
        begin = time.monotonic()
        for _ in range(3):
            with pytest.raises(MemoryError):
                Dying(SystemExit()).start()
        assert time.monotonic() - begin < 8


class Late(threading.Thread):
    """Begins when the test says so."""

    def __init__(self, target: Callable[[], None]) -> None:
        super().__init__(target=target)
        self.go, self.over = threading.Event(), threading.Event()

    def _bootstrap(self) -> None:
        self.go.wait(10)
        begin: Callable[[], None] = getattr(super(), "_bootstrap")  # noqa: B009  # no public name
        begin()
        self.over.set()


def test_a_thread_that_was_refused_and_begins_late_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domains.threads._BEGIN_S", 0.01)
    monkeypatch.setattr("domains.threads._BEGIN_AGAIN_S", 0.01)
    done = list[str]()
    with bounded_starts():
        late = Late(lambda: done.append("late"))
        with pytest.raises(MemoryError):
            late.start()
        late.go.set()
        assert late.over.wait(10)
    assert not done


def test_threads_begin_and_end_as_ever() -> None:
    done = list[str]()
    with bounded_starts():
        thread = threading.Thread(target=done.append, args=("done",))
        thread.start()
        thread.join(10)
        with pytest.raises(RuntimeError, match="only be started once"):
            thread.start()
    assert done == ["done"]
