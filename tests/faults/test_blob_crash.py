"""The process dies by SIGKILL at any point of an upload, a collection or a move: no blob is lost, half or left over."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("work", "least_points"), [("upload", 15), ("collect", 25), ("move", 10)])
def test_a_new_process_finds_what_was_promised(work: str, least_points: int) -> None:
    command = [sys.executable, "-m", "tests.faults.blob_crash", work]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) >= least_points
