"""Seconds between plugging a simulated device in or out (an edit of its script) and the event that tells of it.

No peer: the target is the design's limit. Every change of every round must be within it.
"""

import tempfile
import time
from pathlib import Path

from bench.measure import result, spread
from tests.server.sim import Events, Script, sim, simulated

ROUNDS = 10
LIMIT_S = 2.0


def seconds(script: Script, events: Events, kind: str, device_id: str, *devices: str) -> float:
    """From the edit to the event."""
    begin = time.monotonic()
    script.write(*devices)
    events.until(lambda event: event.kind == kind and event.resource_id == device_id)
    return time.monotonic() - begin


def main() -> int:
    """Print the median of all changes."""
    out, there = sim(0, "present = false"), sim(0)
    with tempfile.TemporaryDirectory() as folder, simulated(Path(folder), there) as (_, script, events):
        lost: list[float] = []
        returned: list[float] = []
        for _ in range(ROUNDS):
            lost.append(seconds(script, events, "device.lost", "sim-0", out))
            returned.append(seconds(script, events, "device.returned", "sim-0", there))
        appeared = seconds(script, events, "device.appeared", "sim-1", there, sim(1))
        ready_from = time.monotonic()
        events.until_state("sim-1", "AVAILABLE")
        ready = time.monotonic() - ready_from
    every = [*lost, *returned, appeared]
    return result(
        "hot_plug",
        spread(every),
        target=LIMIT_S,
        better="lower",
        peer="none: seconds, against the design's limit",
        conditions={"every change is seen in time": max(every) <= LIMIT_S},
        details={
            "lost s": spread(lost),
            "returned s": spread(returned),
            "appeared s": appeared,
            "its worker ready after s more": ready,
            "slowest s": max(every),
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
