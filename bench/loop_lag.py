"""How late the front's event loop is while a generation with previews runs, and is followed.

A callback in the front's own loop asks to be called after 5 ms, again and again, and notes how late that was
(`bench/loop_probe`, which Python loads into the process; the server has nothing for it). Beside it the same in a process
whose loop has nothing else to do, under the same load of the machine: what the operating system's scheduler and clock take
alone. The peer is the target of 5 ms; the ratio is the front's 99th percentile / that.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.busy import generating
from bench.measure import Spread, result
from bench.unary import wait_for_device
from tests.server.harness import running_server

PROBE = Path(__file__).parent / "loop_probe"
TARGET_MS = 5.0
LIMIT_S = 180.0


class Watch:
    """A process whose loop tells how late it is."""

    def __init__(self, folder: Path, *words: str) -> None:
        """`words`: what its command line has."""
        self.begin, self.out = folder / "begin", folder / f"{words[0]}.json"
        settings = {"words": words, "begin": str(self.begin), "out": str(self.out)}
        paths = (str(PROBE), os.environ.get("PYTHONPATH", ""))
        self.environment = {
            "DEVICEOPS_BENCH_LOOP": json.dumps(settings),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }

    def lateness_ms(self) -> dict[str, float]:
        """Percentiles, once it has looked often enough."""
        until = time.monotonic() + LIMIT_S
        while not self.out.exists():
            assert time.monotonic() < until, "the loop has told nothing"
            time.sleep(0.1)
        samples = json.loads(self.out.read_text())
        cuts = statistics.quantiles(samples, n=100)
        return {
            "samples": len(samples),
            "p50 ms": cuts[49],
            "p95 ms": cuts[94],
            "p99 ms": cuts[98],
            "worst ms": max(samples),
        }


def main() -> int:
    """Print the lag at the 99th percentile against the target."""
    with tempfile.TemporaryDirectory() as name:
        front, idle = Watch(Path(name), "serve"), Watch(Path(name), "idle")
        nothing_to_do = "import asyncio; asyncio.run(asyncio.sleep(1e6))"
        with running_server("--device", "cpu", environment=front.environment) as server:
            wait_for_device(server.device)
            with (
                subprocess.Popen(
                    [sys.executable, "-c", nothing_to_do, "idle"], env={**os.environ, **idle.environment}
                ) as alone,
                generating(server),
            ):
                front.begin.touch()
                lag, bare = front.lateness_ms(), idle.lateness_ms()
                alone.kill()
    return result(
        "loop_lag",
        Spread(median=lag["p99 ms"] / TARGET_MS, low=lag["p50 ms"] / TARGET_MS, high=lag["worst ms"] / TARGET_MS),
        target=1.0,
        better="lower",
        peer=f"a p99 of {TARGET_MS} ms",
        details={"front": lag, "a loop with nothing to do, beside it": bare},
    )


if __name__ == "__main__":
    raise SystemExit(main())
