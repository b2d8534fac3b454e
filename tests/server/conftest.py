"""One server for all tests that only use it; those that hurt it start their own."""

from collections.abc import Iterator

import pytest

from tests.server.asking import end_all
from tests.server.harness import RunningServer, running_server

_shared: list[RunningServer] = []


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """A shared server on the CPU with the embedded model."""
    with running_server("--device", "cpu") as running:
        _shared.append(running)
        yield running
        _shared.clear()


@pytest.fixture(scope="module", autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """Jobs that a file left in the shared server end with it: beside them, the pictures of the next file's jobs could differ
    by rounding."""
    yield
    for running in _shared:
        end_all(running)
