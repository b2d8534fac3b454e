"""The process dies by SIGKILL at any point of a conversion: the next one finds the result or writes it, once, and leaves
nothing else."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_conversion_that_was_killed_comes_to_its_end_after_the_restart(kind: str) -> None:
    command = [sys.executable, "-m", "tests.faults.conversion_crash", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) >= 10
