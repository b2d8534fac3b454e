"""One figure to measure, and how long each run of something took."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from domains.device.benchmark import Suite
from domains.device.on_device.free_memory import wait_for

Work = Callable[[], object]

_WARM_UPS = 2
_FEWEST = 3
_MOST = 1000
_LONGEST_S = {"cuda": 1.0}
_LONGEST_ON_HOST_S = 0.2
_BATCH = 8
"""Runs between two looks at the clock, on a device that works on its own."""


@dataclass(frozen=True, kw_only=True)
class TimeBudget:
    """How long a figure may take, and whether somebody wants it to end."""

    device: torch.device
    until_s: float
    """Of time.perf_counter."""
    stop: Callable[[], bool]

    @property
    def over(self) -> bool:
        """Whether to take no more samples."""
        return self.stop() or time.perf_counter() >= self.until_s


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Something to measure."""

    suite: Suite
    name: str
    unit: str
    workload: str
    take: Callable[[TimeBudget], Sequence[float]] = lambda budget: ()
    """Samples in the unit; empty: it was stopped or the time was over before the first."""
    missing: str = ""
    """Why it cannot be measured here. Empty: it can."""


def runs(prepare: Callable[[], Work], amount: float | None = None) -> Callable[[TimeBudget], Sequence[float]]:
    """Samples of a work: seconds a run, or `amount` (bytes, operations) divided by them. `prepare` makes the inputs."""

    def take(budget: TimeBudget) -> Sequence[float]:
        times = _times(prepare(), budget)
        return times if amount is None else [amount / took for took in times]

    return take


def _times(work: Work, budget: TimeBudget) -> list[float]:
    for _ in range(_WARM_UPS):
        if budget.over:
            return []
        work()
        wait_for(budget.device)
    times: list[float] = []
    end = time.perf_counter() + _LONGEST_S.get(budget.device.type, _LONGEST_ON_HOST_S)
    batch = _by_events if budget.device.type == "cuda" else _by_clock
    while len(times) < _MOST and not budget.over and (len(times) < _FEWEST or time.perf_counter() < end):
        times += batch(work, budget.device)
    return times[:_MOST]


def _by_clock(work: Work, device: torch.device) -> list[float]:
    begin = time.perf_counter()
    work()
    return [time.perf_counter() - begin]


def _by_events(work: Work, device: torch.device) -> list[float]:
    """Timed by the device itself, so the host's own time between two runs does not count."""
    with torch.cuda.device(device):
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(_BATCH)]
        for begin, end in events:
            begin.record()
            work()
            end.record()
        torch.cuda.synchronize(device)
    return [begin.elapsed_time(end) / 1000 for begin, end in events]
