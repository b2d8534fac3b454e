"""Copies between host and device, pageable and pinned, in both directions."""

from functools import partial

import torch

from domains.device.benchmark import Suite
from domains.device.on_device.benchmark.figure import Figure, Work, runs
from domains.device.on_device.free_memory import free_bytes

_BYTES = 256 * 2**20
_SHARE = 8


def figures(device: torch.device) -> list[Figure]:
    """Each direction and kind of host memory; a figure that is not available says why."""
    length = min(_BYTES, free_bytes(device) // _SHARE)
    return [_figure(device, length, pinned, to_host) for to_host in (False, True) for pinned in (False, True)]


def _figure(device: torch.device, length: int, pinned: bool, to_host: bool) -> Figure:
    return Figure(
        suite=Suite.TRANSFER,
        name=f"{'device_to_host' if to_host else 'host_to_device'}_{'pinned' if pinned else 'pageable'}",
        unit="By/s",
        workload=f"{length} bytes",
        take=runs(partial(_copy, device, length, pinned, to_host), amount=length),
        missing=_missing(device, pinned),
    )


def _missing(device: torch.device, pinned: bool) -> str:
    if device.type == "cpu":
        return "the memory of a CPU is the host's"
    return "page-locked memory is CUDA's alone" if pinned and device.type != "cuda" else ""


def _copy(device: torch.device, length: int, pinned: bool, to_host: bool) -> Work:
    # Filled, so that the system maps its pages before the first copy.
    host = torch.ones(length, dtype=torch.uint8, pin_memory=pinned)
    there = torch.ones(length, dtype=torch.uint8, device=device)
    target, source = (host, there) if to_host else (there, host)
    return lambda: target.copy_(source, non_blocking=pinned)
