"""One server for all tests that only use it; those that hurt it start their own."""

from collections.abc import Iterator

import pytest

from tests.server.harness import RunningServer, running_server


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """A shared server on the CPU with the embedded model."""
    with running_server("--device", "cpu") as running:
        yield running
