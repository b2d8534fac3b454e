"""A process that is killed at a step leaves a checkpoint, from which another one makes the same picture, bit for bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.domains.inference.on_device.tiny_model import write_tiny_model

SAMPLERS = ["euler_a", "dpmpp_2m_sde", "unipc"]
"""New noise at each step; noise and a history; a history and a corrector. `test_pausing` pauses every sampler at every
step, and `python -m bench killed_at_each_step` kills there."""
KILLED_AFTER = 3
"""Of 5 steps: with all the history that a solver remembers."""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_after_a_kill_in_mid_walk_another_process_makes_the_same_picture(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "tiny")
    module = "tests.domains.inference.on_device.killed_runs"
    command = [sys.executable, "-m", module, str(tmp_path), str(KILLED_AFTER), *SAMPLERS]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=300)
    assert json.loads(told.stdout) == {sampler: [] for sampler in SAMPLERS}
