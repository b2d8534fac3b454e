"""Bandwidth of the device's memory, and the time of one allocation."""

import time
from collections.abc import Sequence
from functools import partial

import torch

from domains.device.benchmark import Suite
from domains.device.on_device.benchmark.figure import Figure, TimeBudget, Work, runs
from domains.device.on_device.free_memory import free_bytes, give_back, wait_for

_SHARE = 8
_ALLOCATED_BYTES = 64 * 2**20
_ALLOCATIONS = 20


def figures(device: torch.device) -> list[Figure]:
    """Copy within the device, counting bytes read and written; and one allocation from the driver."""
    most = 2**30 if device.type == "cuda" else 256 * 2**20
    length = min(most, free_bytes(device) // _SHARE)
    allocated = min(_ALLOCATED_BYTES, free_bytes(device) // _SHARE)
    return [
        Figure(
            suite=Suite.MEMORY,
            name="device_copy",
            unit="By/s",
            workload=f"{length} bytes, read and written",
            take=runs(partial(_copy, device, length), amount=2 * length),
        ),
        Figure(
            suite=Suite.MEMORY,
            name="allocation",
            unit="s",
            workload=f"{allocated} bytes, the allocator's cache empty",
            take=partial(_allocations, device, allocated),
        ),
    ]


def _copy(device: torch.device, length: int) -> Work:
    source = torch.ones(length, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _allocations(device: torch.device, length: int, budget: TimeBudget) -> Sequence[float]:
    """Seconds per allocation on the host's clock: an allocation is the host's work."""
    times: list[float] = []
    for _ in range(_ALLOCATIONS + 1):
        if budget.over:
            break
        give_back(device)
        begin = time.perf_counter()
        piece = torch.empty(length, dtype=torch.uint8, device=device)
        wait_for(device)
        times.append(time.perf_counter() - begin)
        del piece
    # The first allocation initializes libraries.
    return times[1:]
