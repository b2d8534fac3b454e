"""For all tests."""

import gc
import os
import signal
import sys
from collections.abc import Generator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

_HERE = Path(__file__).parent

# A shell ignores Ctrl-C in what it starts in the background, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two test processes on two cores: a worker that computes with a thread a core would spin against the other's.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Without garbage collection: what is imported stays, and walking it again and again takes a quarter of the time."""
    gc.disable()
    try:
        _import_from_own_place(session)
        return (yield)
    finally:
        gc.enable()


def _import_from_own_place(session: pytest.Session) -> None:
    """In a new checkout, have each of several processes import the test files from another place on.

    pytest rewrites a file's assertions at its first import, for 30 ms on average, and keeps the result beside it. Processes
    that import the files in one order all do so for each file; from different places on, each finds what the others kept.
    """
    several = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    whole = [Path(one).absolute() for one in session.config.args] == [_HERE]
    if several == 1 or not whole or sys.dont_write_bytecode:
        return
    files = sorted(_HERE.rglob("test_*.py"))
    if sum(map(_is_rewritten, files)) > len(files) // 2:
        return
    place = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) * len(files) // several
    for path in (*files[place:], *files[:place]):
        # What cannot be imported is told by the collection, which imports it again.
        with suppress(Exception, pytest.skip.Exception):
            _ = pytest.Module.from_parent(session, path=path).obj


def _is_rewritten(path: Path) -> bool:
    kept = f"{path.stem}.{sys.implementation.cache_tag}-pytest-{pytest.__version__}.pyc"
    return (path.parent / "__pycache__" / kept).exists()


def pytest_collection_finish() -> None:
    """What is imported by now stays to the end, so no garbage collection walks it again: that takes 0.3 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_import_for_all_servers() -> Generator[None]:
    """See `nursery_source`; the process starts with the first server."""
    from tests.server import nursery_source

    with nursery_source.opened():
        yield


_LONGEST_FIRST = ("csharp", "faults", "server", "domains")
"""Folders whose files take longest, a minute or more, come first: the processes then end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for `--dist loadfile`; within a file the order stays."""
    items.sort(key=lambda item: _place(item.path))


@cache
def _place(path: Path) -> int:
    folder = path.relative_to(_HERE).parts[0]
    return _LONGEST_FIRST.index(folder) if folder in _LONGEST_FIRST else len(_LONGEST_FIRST)
