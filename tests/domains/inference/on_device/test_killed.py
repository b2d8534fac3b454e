"""A process that is killed at a step leaves a checkpoint, from which another one makes the same picture, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.domains.inference.on_device.tiny_model import write_tiny_model
from tests.server import nursery_source

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
    source = nursery_source.present()
    # The process that forks has imported everything and computes nothing, as one that was started for it.
    told = (
        source.start(command, os.environ, 2) if source else subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    )
    assert told.stdout is not None
    with told.stdout as stdout:
        assert json.loads(stdout.read()) == {sampler: [] for sampler in SAMPLERS}
    assert told.wait(60) == 0
