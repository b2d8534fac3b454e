"""What the queue needs of a device worker. `server.worker.link` is the real one: a process at the other end of a pipe."""

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from domains.device.device import Device
from domains.inference.generation import ResolvedGeneration
from domains.inference.outcome import Failed, Finished, ImageReady, Stopped
from domains.model.loaded import LoadedModel
from domains.model.model import Model
from domains.progress import Degraded, PreviewReady, Progressed, StageStarted


class GenerateOrder(msgspec.Struct, frozen=True, kw_only=True, tag="generate"):
    """Make these pictures; load the model first if it is not loaded."""

    job_id: str
    model: Model
    resolved: ResolvedGeneration


class LoadOrder(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """Bring this model onto the device."""

    job_id: str
    model: Model


class UnloadOrder(msgspec.Struct, frozen=True, kw_only=True, tag="unload"):
    """Give back what this model holds on the device."""

    model_id: str


Order = GenerateOrder | LoadOrder | UnloadOrder


class ModelLoaded(msgspec.Struct, frozen=True, kw_only=True, tag="model_loaded"):
    """A model is on the device now."""

    loaded: LoadedModel


class ModelUnloaded(msgspec.Struct, frozen=True, kw_only=True, tag="model_unloaded"):
    """A model is no longer on the device."""

    model_id: str
    freed_bytes: int | None
    """What the allocator gave back; absent where that cannot be measured."""


Report = (
    StageStarted
    | Progressed
    | PreviewReady
    | Degraded
    | ImageReady
    | ModelLoaded
    | ModelUnloaded
    | Finished
    | Failed
    | Stopped
)
"""What a worker answers to an order. `Finished`, `Failed` or `Stopped` is the last, once."""


class WorkerGone(Exception):
    """The worker process ended, or its pipe broke, in mid-order. Not an answer to a caller: the job runs again."""


class Worker(Protocol):
    """A process that owns one device."""

    @property
    def device(self) -> Device:
        """The device, as the worker found it."""
        ...

    def carry_out(self, order: Order) -> AsyncIterator[Report]:
        """Send an order and follow it to its last report. Raises `WorkerGone`."""
        ...

    def stop(self, job_id: str) -> None:
        """Ask the worker to end a job's order at the next safe point; it answers `Stopped`."""
        ...
