"""Free memory of a device, synchronization, and the allocator's cache."""

import psutil
import torch


def free_bytes(device: torch.device) -> int:
    """Memory free in the driver and in the allocator's cache; without such a report, the host's available memory."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def wait_for(device: torch.device) -> None:
    """Wait for all queued work of the device, and raise its errors.

    Other backends than CUDA have no such call; there, reading a result waits.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def give_back(device: torch.device) -> None:
    """Return the allocator's cache to the driver."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
