"""What a worker is started with decides how it is started."""

from pathlib import Path

import pytest

from server.worker.command import WorkerStart


@pytest.mark.parametrize(
    ("start", "forkable"),
    [
        (WorkerStart(name="cpu"), True),
        (WorkerStart(name="sim-3"), True),
        (WorkerStart(name="cuda:0", uuid="GPU-1"), True),
        (WorkerStart(name="rocm:0"), False),
        (WorkerStart(name="directml:0", python=Path("/opt/dml/bin/python")), False),
        (WorkerStart(name="cpu", python=Path("/opt/dml/bin/python")), False),
    ],
)
def test_only_workers_that_were_seen_to_live_as_forks_are_forked(start: WorkerStart, forkable: bool) -> None:
    assert start.forkable is forkable
