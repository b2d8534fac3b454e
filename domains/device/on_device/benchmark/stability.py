"""Drift of speed and temperature under steady load, and reproducibility of the result."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from domains.device.benchmark import Suite
from domains.device.on_device.benchmark.figure import Figure, TimeBudget
from domains.device.on_device.steady_load import SteadyLoad, steady_load
from domains.device.on_device.trial import CheckStopped, Trial

_LOAD_S = {"cuda": 10.0}
_LOAD_ON_HOST_S = 1.0


def figures(device: torch.device) -> list[Figure]:
    """All figures from one load."""
    load = _Load(device=device)
    return [
        load.figure("iteration", "s", "steady matmul float32"),
        load.figure("drift", "1", "iterations of the last third against the median of the first"),
        load.figure("differing_results", "1", "results that are not bitwise the first one"),
        load.figure("temperature_rise", "Cel", "after the load against before", _no_temperature(device)),
    ]


def _no_temperature(device: torch.device) -> str:
    return "the driver does not tell the temperature" if temperature(device) is None else ""


def temperature(device: torch.device) -> float | None:
    """Degrees Celsius; None: not available."""
    if device.type != "cuda":
        return None
    try:
        return float(torch.cuda.temperature(device))
    except Exception:  # NVML's errors are no RuntimeErrors, and its package may be missing
        return None


@dataclass
class _Load:
    """Runs the load once, for the first figure that needs it."""

    device: torch.device
    seen: SteadyLoad | None = None
    temperatures: list[float | None] = field(default_factory=list[float | None])

    def figure(self, name: str, unit: str, workload: str, missing: str = "") -> Figure:
        return Figure(
            suite=Suite.STABILITY,
            name=name,
            unit=unit,
            workload=workload,
            take=lambda budget: self._samples(name, budget),
            missing=missing,
        )

    def _samples(self, name: str, budget: TimeBudget) -> Sequence[float]:
        seen = self._run(budget)
        if seen is None:
            return ()
        if name == "temperature_rise":
            return self._rise()
        if name == "differing_results":
            return (float(len(seen.differing)),)
        return seen.times_s if name == "iteration" else _drift(seen)

    def _run(self, budget: TimeBudget) -> SteadyLoad | None:
        if self.seen is None:
            longest = _LOAD_S.get(self.device.type, _LOAD_ON_HOST_S)
            duration = min(longest, budget.until_s - time.perf_counter())
            before = temperature(self.device)
            try:
                self.seen = steady_load(Trial(device=self.device, stop=budget.stop), duration)
            except CheckStopped:
                return None
            self.temperatures = [before, temperature(self.device)]
        return self.seen

    def _rise(self) -> Sequence[float]:
        before, after = self.temperatures
        return () if before is None or after is None else (after - before,)


def _drift(seen: SteadyLoad) -> Sequence[float]:
    third = max(len(seen.times_s) // 3, 1)
    first = statistics.median(seen.times_s[:third])
    return [took / first for took in seen.times_s[-third:]]
