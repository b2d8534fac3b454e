"""Repeats one computation: checks that speed and results stay the same."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from domains.device.health import Verdict
from domains.device.on_device.free_memory import wait_for
from domains.device.on_device.operations import Operation, matmul
from domains.device.on_device.trial import CheckResult, Trial, seconds
from domains.measurement import Measurement

SUSTAINED_S = 10.0
SLOWER_THAN = 1.3
"""Time of an iteration in the last third relative to the first third; above this the device is throttled."""
_FEWEST = 6
"""Minimum number of iterations for a comparison of thirds."""


@dataclass(frozen=True, kw_only=True)
class SteadyLoad:
    """Result of a steady load."""

    workload: str
    times_s: tuple[float, ...]
    """Time of each iteration, without the warm-up."""
    differing: tuple[int, ...]
    """Indexes of the iterations whose result differs from the first."""

    @property
    def thirds_s(self) -> tuple[float, float]:
        """Median time of an iteration in the first and in the last third."""
        third = max(len(self.times_s) // 3, 1)
        return statistics.median(self.times_s[:third]), statistics.median(self.times_s[-third:])

    @property
    def drift(self) -> float:
        """Time of an iteration in the last third divided by that in the first."""
        first, last = self.thirds_s
        return last / first


def steady_load(trial: Trial, duration_s: float) -> SteadyLoad:
    """Compute for this long, at least one iteration. Raises CheckStopped between two iterations."""
    operation, repeats = _load(trial.device)
    inputs = [one.to(trial.device) for one in operation.inputs(torch.float32)]
    expected = _iteration(operation, inputs, repeats)
    wait_for(trial.device)
    times: list[float] = []
    differing: list[int] = []
    end = time.perf_counter() + duration_s
    while not times or time.perf_counter() < end:
        trial.raise_if_stopped()
        result, took = _timed(trial.device, lambda: _iteration(operation, inputs, repeats))
        if not torch.equal(trial.corrupt(result), expected):
            differing.append(len(times))
        times.append(took)
    workload = f"{repeats} x matmul {operation.workload} float32"
    return SteadyLoad(workload=workload, times_s=tuple(times), differing=tuple(differing))


def sustained_compute(trial: Trial, duration_s: float = SUSTAINED_S) -> CheckResult:
    """Check that speed and results stay the same."""
    load = steady_load(trial, duration_s)
    first, last = load.thirds_s
    measurements = (
        seconds("sustained_compute", sum(load.times_s)),
        seconds("iteration_first_third", first),
        seconds("iteration_last_third", last),
        Measurement(name="iterations", value=float(len(load.times_s)), unit="1"),
    )
    verdict, message = _judge(load)
    return CheckResult(verdict=verdict, message=message, measurements=measurements)


def _judge(load: SteadyLoad) -> tuple[Verdict, str]:
    count = len(load.times_s)
    if load.differing:
        message = f"{len(load.differing)} of {count} results differ from the first, the first in iteration "
        return Verdict.UNHEALTHY, f"{message}{load.differing[0]}; expected the same bits each time"
    if count < _FEWEST:
        message = f"{count} equal results; {_FEWEST} iterations are needed to judge the speed"
        return Verdict.HEALTHY, message
    first, last = load.thirds_s
    speed = f"an iteration took {first:.4g} s in the first third and {last:.4g} s in the last"
    if load.drift > SLOWER_THAN:
        return Verdict.DEGRADED, f"{speed}; expected at most {SLOWER_THAN} times as long"
    return Verdict.HEALTHY, f"{count} equal results; {speed} (limit: {SLOWER_THAN} times the first)"


def _load(device: torch.device) -> tuple[Operation, int]:
    """A product, and how many of them make an iteration of some milliseconds."""
    return (matmul(4096), 4) if device.type == "cuda" else (matmul(384), 2)


def _iteration(operation: Operation, inputs: Sequence[Tensor], repeats: int) -> Tensor:
    result = operation.compute(*inputs)
    for _ in range(repeats - 1):
        result = operation.compute(*inputs)
    return result


def _timed(device: torch.device, work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    begin = time.perf_counter()
    result = work()
    wait_for(device)
    return result, time.perf_counter() - begin
