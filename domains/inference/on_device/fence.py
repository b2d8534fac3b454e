"""Detects that a device has finished enqueued work, without stopping it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from domains.model.on_device import Ready


class Fence(Ready, Protocol):
    """Marks the end of some enqueued work; waiting for it does not hold up later work."""

    def device_s(self) -> float | None:
        """Seconds on the device, once passed; None where they cannot be measured."""
        ...


@dataclass(frozen=True, eq=False)
class EventFence:
    """See `Fence`. On a CPU the work is finished when the fence is made."""

    begin: torch.cuda.Event | None = None
    end: torch.cuda.Event | None = None

    def passed(self) -> bool:
        """Whether the device has finished the work. Never waits."""
        return self.end is None or self.end.query()

    def wait(self) -> None:
        """Wait until the work is finished; work that was enqueued later goes on."""
        if self.end is not None:
            self.end.synchronize()

    def device_s(self) -> float | None:
        """Seconds on the device, once passed; None where they cannot be measured."""
        return None if self.begin is None or self.end is None else self.begin.elapsed_time(self.end) / 1e3


def mark(device: torch.device) -> torch.cuda.Event | None:
    """An event after everything enqueued so far; None where the device has no queue."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def to_host(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, valid once a later fence has passed; on a CPU the tensor itself."""
    if tensor.device.type != "cuda":
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)
