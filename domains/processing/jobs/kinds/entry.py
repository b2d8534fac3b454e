"""What an entry of the table of kinds has. An entry is the work itself: a value that is stored with its job."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from domains.device.benchmark import BenchmarkReport
from domains.inference.generation import Previews
from domains.model.loaded import LoadedModel
from domains.model.model import Model
from domains.processing.jobs.event import GeneratedImage, JobResult
from domains.processing.jobs.kinds.assets import Asset
from domains.processing.workers.worker import Order
from domains.reasons import Domain

if TYPE_CHECKING:
    from domains.processing.attempts.front_task import FrontRunners, FrontTask
    from domains.processing.jobs.left import Done, Halted


class Kind(Protocol):
    """What every kind has."""

    domain: ClassVar[Domain]
    """The part of the server whose work it is."""
    alone: ClassVar[bool]
    """Whether it needs its device to itself."""
    has_prompt: ClassVar[bool]
    """Whether its summary may hold words of a prompt."""

    @property
    def summary(self) -> str:
        """What it is about, for people."""
        ...

    @property
    def device_ids(self) -> tuple[str, ...]:
        """The devices that the work itself names, by id or alias. Empty: the job's options decide."""
        ...

    @property
    def assets(self) -> tuple[Asset, ...]:
        """The models that it needs on its device, the base first."""
        ...


class Supplies(msgspec.Struct, frozen=True, kw_only=True):
    """What an order is made of beside the work."""

    model: Callable[[str], Model]
    """A model by id, as a worker needs it. Raises MODEL_NOT_FOUND."""
    previews: Callable[[Previews], Previews]
    """The previews to make of a job that itself asks for these."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the reports of an attempt, and of those before, have told so far."""

    images: tuple[GeneratedImage, ...] = ()
    """Those on disk, by their index."""
    loaded: LoadedModel | None = None
    """The base, once it is on the device."""
    benchmark: BenchmarkReport | None = None
    libraries: tuple[str, ...] = ()
    """Versions of what computes: `torch 2.14.1`."""


class DeviceKind(Kind, Protocol):
    """A kind that a device worker carries out."""

    @property
    def pins(self) -> bool:
        """Whether the model that it loads is kept when memory gets short."""
        ...

    def order(self, order_id: str, supplies: Supplies) -> Order:
        """What the worker is told."""
        ...

    def result(self, told: Told) -> JobResult:
        """What it gives, after the worker's last report."""
        ...


class FrontKind(Kind, Protocol):
    """A kind that the front process carries out by itself."""

    at_once: ClassVar[int]
    """How many of it run at the same time."""

    def begin(self, runners: "FrontRunners", task: "FrontTask") -> "Awaitable[Done | Halted]":
        """Carry it out."""
        ...
