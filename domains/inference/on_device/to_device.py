"""Copies to the device that do not wait for it."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A host tensor on the device. Returns at once: a copy out of memory that is not pinned would wait for everything that
    is enqueued, for example for the weights of a model that is on its way."""
    device = torch.device(device)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
