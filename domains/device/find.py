"""Which devices this machine has, asked of the driver: no torch, so the front process can know before any worker runs."""

from collections.abc import Sequence

import pynvml


def find(wanted: Sequence[str]) -> list[str]:
    """Torch names of the devices to start workers for. `auto`: every CUDA device, else the CPU."""
    if list(wanted) != ["auto"]:
        return list(dict.fromkeys(wanted))
    return [f"cuda:{index}" for index in range(cuda_count())] or ["cpu"]


def cuda_count() -> int:
    """CUDA devices that the driver lists; 0 without a driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return pynvml.nvmlDeviceGetCount()
    finally:
        pynvml.nvmlShutdown()
