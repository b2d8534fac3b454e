"""For all tests."""

import gc
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

_HERE = Path(__file__).parent

# A shell ignores Ctrl-C in what it starts in the background, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two test processes on two cores: a worker that computes with a thread a core would spin against the other's.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Without garbage collection: what is imported stays, and walking it again and again takes a quarter of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


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
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    folder = item.path.relative_to(_HERE).parts[0]
    return _LONGEST_FIRST.index(folder) if folder in _LONGEST_FIRST else len(_LONGEST_FIRST)
