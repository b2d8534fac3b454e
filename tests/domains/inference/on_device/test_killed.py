"""A process that is killed at a step leaves a checkpoint, from which another one makes the same picture, bit for bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from domains.inference.solvers.table import SOLVERS
from tests.domains.inference.on_device.tiny_model import write_tiny_model

ONE_OF_EACH_FILE = {solver.lines.__module__: sampler for sampler, solver in SOLVERS.items()}

KILLED_AFTER = 3
"""Of 5 steps: with all the history that a solver remembers. `python -m bench killed_at_each_step` has all."""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_after_a_kill_in_mid_walk_another_process_makes_the_same_picture(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "tiny")
    samplers = list(ONE_OF_EACH_FILE.values())
    module = "tests.domains.inference.on_device.killed_runs"
    command = [sys.executable, "-m", module, str(tmp_path), str(KILLED_AFTER), *samplers]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=300)
    assert json.loads(told.stdout) == {sampler: [] for sampler in samplers}
