"""How much memory of a device is free, and waiting for it."""

import psutil
import torch


def free_bytes(device: torch.device) -> int:
    """What can be taken from the driver and from the allocator's cache; of a device that does not tell, the host's."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def wait_for(device: torch.device) -> None:
    """Return when all that was given to the device is computed, and raise what went wrong there.

    Devices other than CUDA's have no such call; reading a result waits there.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def give_back(device: torch.device) -> None:
    """Return what the allocator keeps to the driver."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
