"""The process is killed after every step of every sampler, and another one goes on: identical pictures, all of them."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
import subprocess
import sys
from pathlib import Path

from bench.crowd import folder, tiny_model
from bench.measure import Spread, result
from domains.inference.samplers import SAMPLERS
from tests.domains.inference.on_device.killed_runs import STEPS


def main() -> int:
    """Print the share of pictures whose bytes do not show the kill."""
    with folder() as place:
        tiny_model(Path(place))
        steps = ",".join(str(step) for step in range(STEPS + 1))
        command = [sys.executable, "-m", "tests.domains.inference.on_device.killed_runs", place, steps, *SAMPLERS]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    differing: dict[str, list[int]] = json.loads(told.stdout)
    kills = len(SAMPLERS) * (STEPS + 1)
    share = 1 - sum(map(len, differing.values())) / kills
    return result(
        "killed_at_each_step",
        Spread(median=share, low=share, high=share),
        target=1.0,
        peer="the same requests in a process that lives",
        conditions={"every sampler": differing.keys() == SAMPLERS.keys()},
        details={
            "kills": kills,
            "steps whose picture differs": {name: some for name, some in differing.items() if some},
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
