"""Bring a model onto a device."""

from typing import ClassVar

from domains.errors import InternalError
from domains.model.execution import AS_USUAL, Execution
from domains.model.loaded import Stay
from domains.processing.jobs.event import LoadResult
from domains.processing.jobs.kinds.assets import Asset, AssetRole
from domains.processing.jobs.kinds.entry import PlainWork, Reported, Supplies
from domains.processing.workers.worker import LoadOrder
from domains.reasons import Domain


class LoadWork(PlainWork, frozen=True, kw_only=True, tag="load_model"):
    """Bring a model onto a device. Implements `DeviceKind`."""

    domain: ClassVar[Domain] = Domain.MODEL

    model_id: str
    pin: bool = False
    """Keep the model when memory gets short."""
    keep_alive_s: float | None = None
    """How long the model stays without being used. None: as the server's settings say."""
    execution: Execution = AS_USUAL

    @property
    def summary(self) -> str:
        """Names the model."""
        return f"load {self.model_id}"

    @property
    def assets(self) -> tuple[Asset, ...]:
        """The model that it loads."""
        return (Asset(role=AssetRole.BASE, model_id=self.model_id),)

    @property
    def stay(self) -> Stay:
        """The pinning and the keep-alive that the request asks for."""
        return Stay(pinned=self.pin or None, keep_alive_s=self.keep_alive_s)

    def order(self, order_id: str, supplies: Supplies) -> LoadOrder:
        """The order with the model's files."""
        execution = supplies.narrower or self.execution
        return LoadOrder(order_id=order_id, model=supplies.model(self.model_id), execution=execution)

    def result(self, reported: Reported) -> LoadResult:
        """The model on the device."""
        if reported.loaded is None:
            raise InternalError(f"the worker ended a load of {self.model_id} without telling what it loaded")
        return LoadResult(loaded=reported.loaded, reused=reported.reused)
