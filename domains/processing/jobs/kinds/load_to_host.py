"""Bring a model into the RAM tier."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar

from domains.model.loaded import Stay
from domains.processing.jobs.kinds.entry import PlainWork
from domains.reasons import Domain

if TYPE_CHECKING:
    from domains.processing.attempts.front_task import FrontRunners, FrontTask
    from domains.processing.jobs.outcome import Done, Halted


class HostLoadWork(PlainWork, frozen=True, kw_only=True, tag="load_to_host"):
    """Bring a model into the RAM tier, for no device in particular. Implements `FrontKind`."""

    domain: ClassVar[Domain] = Domain.MODEL
    at_once: ClassVar[int] = 2

    model_id: str
    pin: bool = False
    """Keep the model when memory gets short."""
    keep_alive_s: float | None = None
    """How long the model stays without being used. None: as the server's settings say."""

    @property
    def summary(self) -> str:
        """Names the model."""
        return f"load {self.model_id} into host memory"

    @property
    def model_ids(self) -> tuple[str, ...]:
        """The model that it loads."""
        return (self.model_id,)

    @property
    def stay(self) -> Stay:
        """The pinning and the keep-alive that the request asks for."""
        return Stay(pinned=self.pin or None, keep_alive_s=self.keep_alive_s)

    def begin(self, runners: "FrontRunners", task: "FrontTask") -> "Awaitable[Done | Halted]":
        """Run the load."""
        return runners.load_to_host(self, task)
