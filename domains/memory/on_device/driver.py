"""Memory figures of the driver and the C library, without torch."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import pynvml
import torch

from domains.device.on_device.cuda_driver import identity


def device_used_bytes(device: torch.device) -> int | None:
    """Bytes used by all processes, without creating a context in this one. None: the driver does not report them."""
    try:
        _bring_up()
        return int(pynvml.nvmlDeviceGetMemoryInfo(_handle(device)).used)
    except pynvml.NVMLError:
        return None


def process_bytes(device: torch.device) -> int | None:
    """Bytes used by this process, its context included.

    None: the driver does not report it (Windows, some virtual machines), or has its PID outside the container.
    """
    try:
        _bring_up()
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(_handle(device))
    except pynvml.NVMLError:
        return None
    own = [process.usedGpuMemory for process in running if process.pid == os.getpid()]
    return int(own[0]) if own and own[0] else None


def trim_heap() -> bool:
    """Make the C library return its free memory to the operating system. False: it has no such call."""
    if sys.platform == "win32":
        return False
    import ctypes

    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return trim is not None


@functools.cache
def _bring_up() -> None:
    """Initialize NVML once in a process, because it takes milliseconds. A failure is tried again."""
    pynvml.nvmlInit()


def _handle(device: torch.device) -> Any:
    """The NVML handle of a device, found by its UUID: NVML numbers devices differently from CUDA."""
    number = device.index or 0
    uuid = _uuid(number)
    return pynvml.nvmlDeviceGetHandleByUUID(uuid) if uuid else pynvml.nvmlDeviceGetHandleByIndex(number)


@functools.cache
def _uuid(number: int) -> str:
    """The UUID in NVML's form. Empty: the driver does not report it."""
    uuid, _ = identity(number)
    return f"GPU-{uuid}" if uuid else ""
