"""Models that have left their device and wait in the RAM tier, OFFLOADED under the id that they had on it."""

from collections.abc import Sequence
from typing import Any

from domains.errors import ErrorReason, FailedPrecondition, ResourceExhausted
from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModel, loaded_id, outdated
from domains.model.loaded_models import LoadedModels
from domains.model.model import Model
from domains.processing.memory.host_loads import HostLoad, HostLoads


class KeptOnHost:
    """Brings the models into the tier, and notes which of them wait there. One event loop."""

    def __init__(self, loads: HostLoads, loaded: LoadedModels, catalogue: Catalogue) -> None:
        self._loads = loads
        self._loaded = loaded
        self._catalogue = catalogue
        self._brought: set[str] = set()
        """Ids of models that are in the tier for this alone."""
        loaded.listeners.append(self._changed)

    async def bring(self, targets: Sequence[LoadedModel]) -> None:
        """Bring the models of these loaded models into the tier, before they leave their devices.

        Raises HOST_OUT_OF_MEMORY; ILLEGAL_STATE for a model whose files have other weights than those that are loaded.
        """
        for model in [self._model_of(one) for one in targets if one.device_id]:
            try:
                found = await self._loads.load(model, HostLoad(), lambda done, total: None, _always)
            except ResourceExhausted as full:
                message = f"{full.message}; unload {model.id} without `keep_on_host`"
                facts: dict[str, Any] = {name: value for name, value in full.facts.items() if name != "model_id"}
                raise ResourceExhausted(message, ErrorReason.HOST_OUT_OF_MEMORY, model_id=model.id, **facts) from full
            if found is not None and not found[1]:
                self._brought.add(model.id)

    def note(self, targets: Sequence[LoadedModel]) -> None:
        """Note that those of the loaded models that have left their devices wait in the tier."""
        for one in targets:
            if one.device_id and self._loaded.find(one.id) is None:
                self._loaded.offload(one)

    def let_go(self, targets: Sequence[LoadedModel]) -> int:
        """End the waiting of these; returns the bytes of host memory that this frees."""
        for one in targets:
            self._loaded.forget_offloaded(one.id)
        waiting = {one.model_id for one in self._loaded.offloaded()}
        spare = {one.model_id for one in targets} & self._brought - waiting
        self._brought -= spare
        return sum(self._loads.models.drop(loaded_id(model_id, "")) for model_id in spare)

    def _model_of(self, one: LoadedModel) -> Model:
        model = self._catalogue.get(one.model_id)
        if outdated(one, model.sha256):
            message = f"the files of {model.id} have other weights than {one.id}; unload it without `keep_on_host`"
            raise FailedPrecondition(message, loaded_model_id=one.id, model_id=model.id)
        return model

    def _changed(self, one: LoadedModel, there: bool) -> None:
        """When a model leaves the tier, remove its OFFLOADED entries, which waited there for their devices."""
        if not there and not one.device_id:
            self._brought.discard(one.model_id)
            for waiting in [each for each in self._loaded.offloaded() if each.model_id == one.model_id]:
                self._loaded.forget_offloaded(waiting.id)


async def _always() -> bool:
    return True
