"""Where the engine touches its device beyond torch's own calls: what a simulated device changes.

A real device needs nothing here; a simulated one keeps books of its scripted memory, takes its scripted time and fails.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from domains.inference.on_device.fence import EventFence, Fence, mark
from domains.memory.measure import MemoryMeasure

Mark = torch.cuda.Event | float | None
"""A moment in the device's queue, or on its clock; None: the device has neither."""


def model_owner(model_id: str) -> str:
    """What `hold` calls a model."""
    return f"model {model_id}"


def job_owner(job_id: str) -> str:
    """What `hold` calls a job."""
    return f"job {job_id}"


class Hardware(Protocol):
    """Called from the thread that ticks. Whatever is raised ends the job, the load or the order that caused the call."""

    def mark(self) -> Mark:
        """A unit of work begins."""
        ...

    def fence(self, began: Mark) -> Fence:
        """The unit that began there is enqueued; the fence tells when it is done."""
        ...

    def before_step(self, job_id: str, step: int, held_bytes: Callable[[], int]) -> None:
        """A job's denoising step, counted from 1, is about to be computed. `held_bytes`: what its tensors hold."""
        ...

    def after_step(self, job_id: str, step: int, latents: Tensor) -> None:
        """It is enqueued, and gave these latents."""
        ...

    def after_job(self, job_id: str) -> None:
        """A job has ended, however it did, and its tensors are gone."""
        ...

    def load_piece(self, model_id: str, size_bytes: int, cancelled: Callable[[], bool]) -> None:
        """So many more bytes of a model are there; 0: its load begins. Returns soon once `cancelled` says so."""
        ...

    def hold(self, owner: str, size_bytes: int) -> None:
        """`owner` holds so much from now on, all in all. DEVICE_OUT_OF_MEMORY with need and room: nothing changed then."""
        ...

    def free(self, owner: str) -> None:
        """`owner` holds nothing any more. Of an unknown owner: nothing."""
        ...

    def corrupt(self, result: Tensor) -> Tensor:
        """What the device makes of a result that a check is about to compare."""
        ...

    def room(self) -> int | None:
        """Bytes that can still be taken; None: ask the driver."""
        ...

    def measured(self, measure: MemoryMeasure) -> MemoryMeasure:
        """The memory of the device, from what torch says of it and who holds it."""
        ...


class RealHardware:
    """A device that is what it is."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> Mark:
        """An event in the device's queue."""
        return mark(self._device)

    def fence(self, began: Mark) -> Fence:
        """Passed when the device is past it."""
        return EventFence(began if isinstance(began, torch.cuda.Event) else None, mark(self._device))

    def before_step(self, job_id: str, step: int, held_bytes: Callable[[], int]) -> None:
        """Nothing."""

    def after_step(self, job_id: str, step: int, latents: Tensor) -> None:
        """Nothing."""

    def after_job(self, job_id: str) -> None:
        """Nothing."""

    def load_piece(self, model_id: str, size_bytes: int, cancelled: Callable[[], bool]) -> None:
        """Nothing."""

    def hold(self, owner: str, size_bytes: int) -> None:
        """Nothing: torch's allocator knows."""

    def free(self, owner: str) -> None:
        """Nothing."""

    def corrupt(self, result: Tensor) -> Tensor:
        """The result itself."""
        return result

    def room(self) -> int | None:
        """The driver knows."""
        return None

    def measured(self, measure: MemoryMeasure) -> MemoryMeasure:
        """The measure itself."""
        return measure
