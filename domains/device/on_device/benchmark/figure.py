"""One figure to measure, and the timing of its runs."""

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
"""Runs between two reads of the clock, on a device that works asynchronously."""


@dataclass(frozen=True, kw_only=True)
class TimeBudget:
    """Time limit and stop signal of a figure."""

    device: torch.device
    until_s: float
    """On the clock of time.perf_counter."""
    stop: Callable[[], bool]

    @property
    def over(self) -> bool:
        """Whether to take no more samples."""
        return self.stop() or time.perf_counter() >= self.until_s


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure to measure."""

    suite: Suite
    name: str
    unit: str
    workload: str
    take: Callable[[TimeBudget], Sequence[float]] = lambda budget: ()
    """Takes samples in the unit; empty: stopped or out of time before the first."""
    missing: str = ""
    """Why the figure cannot be measured here. Empty: it can."""


def runs(prepare: Callable[[], Work], amount: float | None = None) -> Callable[[TimeBudget], Sequence[float]]:
    """A measurement: seconds per run, or `amount` (bytes, operations) per second. `prepare` creates the inputs."""

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
    """Seconds per run by the device's own events, without the host's time between two runs."""
    with torch.cuda.device(device):
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(_BATCH)]
        for begin, end in events:
            begin.record()
            work()
            end.record()
        torch.cuda.synchronize(device)
    return [begin.elapsed_time(end) / 1000 for begin, end in events]
