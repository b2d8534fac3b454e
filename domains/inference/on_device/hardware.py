"""The engine's calls to its device beyond torch's own: a simulated device implements them differently.

A real device does nothing here; a simulated one accounts for its scripted memory, takes its scripted time and fails.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from domains.inference.on_device.fence import EventFence, Fence, mark
from domains.memory.measure import MemoryMeasure
from domains.progress import Stage

Mark = torch.cuda.Event | float | None
"""A moment in the device's queue or on its clock; None: the device has neither."""


def model_owner(model_id: str) -> str:
    """The owner name of a model in `hold`."""
    return f"model {model_id}"


def job_owner(job_id: str) -> str:
    """The owner name of a job in `hold`."""
    return f"job {job_id}"


class Hardware(Protocol):
    """Called from the thread that ticks. An error raised here ends the job, load or order that made the call."""

    def mark(self) -> Mark:
        """Mark the beginning of a unit of work."""
        ...

    def fence(self, began: Mark) -> Fence:
        """A fence for the unit that began at `began` and is now enqueued."""
        ...

    def before_unit(self, job_id: str, stage: Stage) -> None:
        """Called before a job's unit of work in a stage that has no steps: conditioning, encoding its input, decoding."""
        ...

    def before_step(self, job_id: str, step: int, held_bytes: Callable[[], int]) -> None:
        """Called before a job's denoising step, counted from 1. `held_bytes`: bytes that its tensors hold."""
        ...

    def after_step(self, job_id: str, step: int, latents: Tensor) -> None:
        """Called when the step is enqueued; `latents` are its result."""
        ...

    def after_job(self, job_id: str) -> None:
        """Called when a job has ended for any reason and its tensors are freed."""
        ...

    def load_piece(self, job_id: str, model_id: str, read_bytes: int, more_bytes: int) -> Fence:
        """Called when `read_bytes` more of a model's files are read for a job, and its weights hold `more_bytes` more. Both
        are 0 when its load begins.

        The load goes on when the fence has passed.
        """
        ...

    def hold(self, owner: str, size_bytes: int) -> None:
        """Set all bytes that `owner` holds. Raises DEVICE_OUT_OF_MEMORY with need and room; changes nothing then."""
        ...

    def free(self, owner: str) -> None:
        """Free all that `owner` holds. Does nothing for an unknown owner."""
        ...

    def corrupt(self, result: Tensor) -> Tensor:
        """The device's version of a result that a check is about to compare."""
        ...

    def room(self) -> int | None:
        """Bytes that can still be allocated; None: ask the driver."""
        ...

    def peak_bytes(self) -> int | None:
        """Most bytes that were allocated at once since the last call; None: not known."""
        ...

    def measured(self, measure: MemoryMeasure) -> MemoryMeasure:
        """The device's memory, derived from torch's measure and its owners."""
        ...


class RealHardware:
    """A real device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            # Before that torch has no statistics of its allocator.
            torch.cuda.init()

    def mark(self) -> Mark:
        """An event in the device's queue."""
        return mark(self._device)

    def fence(self, began: Mark) -> Fence:
        """A fence that passes when the device has finished the unit."""
        return EventFence(began if isinstance(began, torch.cuda.Event) else None, mark(self._device))

    def before_unit(self, job_id: str, stage: Stage) -> None:
        """Does nothing."""

    def before_step(self, job_id: str, step: int, held_bytes: Callable[[], int]) -> None:
        """Does nothing."""

    def after_step(self, job_id: str, step: int, latents: Tensor) -> None:
        """Does nothing."""

    def after_job(self, job_id: str) -> None:
        """Does nothing."""

    def load_piece(self, job_id: str, model_id: str, read_bytes: int, more_bytes: int) -> Fence:
        """A fence that has passed."""
        return EventFence()

    def hold(self, owner: str, size_bytes: int) -> None:
        """Does nothing: torch's allocator counts."""

    def free(self, owner: str) -> None:
        """Does nothing."""

    def corrupt(self, result: Tensor) -> Tensor:
        """The result itself."""
        return result

    def room(self) -> int | None:
        """None: the driver knows."""
        return None

    def peak_bytes(self) -> int | None:
        """The allocator's high-water mark on CUDA. A CPU's tensors share the process's heap."""
        if self._device.type != "cuda":
            return None
        # `max_memory_allocated` flattens all of the statistics first, which takes as long as launching 50 kernels.
        peak = torch.cuda.memory_stats_as_nested_dict(self._device)["allocated_bytes"]["all"]["peak"]
        torch.cuda.reset_peak_memory_stats(self._device)
        return peak

    def measured(self, measure: MemoryMeasure) -> MemoryMeasure:
        """The measure itself."""
        return measure
