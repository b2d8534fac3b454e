"""Holds the models that are loaded on one device."""

import gc
from collections.abc import Callable

import torch

from domains.errors import ErrorReason, FailedPrecondition, NotFound
from domains.inference.on_device.families import family_of
from domains.inference.on_device.family import Family
from domains.inference.on_device.hardware import Hardware, model_owner
from domains.inference.solvers.plan import try_config
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel, load


class ResidentModels:
    """Models by id, each with its family's view of it."""

    def __init__(self, device: torch.device, hardware: Hardware) -> None:
        self._device = device
        self._hardware = hardware
        self._models: dict[str, tuple[OnDeviceModel, Family]] = {}

    def ids(self) -> list[str]:
        """Ids of all loaded models."""
        return list(self._models)

    def sizes(self) -> dict[str, int]:
        """Bytes of each model, by id."""
        return {model_id: loaded.size_bytes for model_id, (loaded, _) in self._models.items()}

    def load(
        self, model: Model, precision: str, progress: Callable[[int, int], None], cancelled: Callable[[], bool]
    ) -> OnDeviceModel:
        """See `StepLoop.load`."""
        if model.id in self._models:
            return _same(self._models[model.id][0], model, precision)
        try:
            watched = self._watched(model.id, progress, cancelled)
            loaded = load(model, str(self._device), precision, watched, cancelled, try_config)
            family = family_of(loaded)
            # The load counted the bytes in the files; on the device they may be wider.
            self._hardware.hold(model_owner(model.id), loaded.size_bytes)
        except BaseException:
            self._hardware.free(model_owner(model.id))
            raise
        self._models[model.id] = loaded, family
        return loaded

    def outdated(self, model: Model) -> bool:
        """Whether the loaded weights differ from those that the model's last scan saw."""
        there = self._models.get(model.id)
        return there is not None and there[0].model.sha256 != model.sha256

    def _watched(
        self, model_id: str, progress: Callable[[int, int], None], cancelled: Callable[[], bool]
    ) -> Callable[[int, int], None]:
        """`progress`, preceded by a call to the hardware for each piece."""
        before = 0

        def told(completed: int, total: int) -> None:
            nonlocal before
            piece, before = completed - before, completed
            self._hardware.load_piece(model_id, piece, cancelled)
            progress(completed, total)

        return told

    def family(self, loaded: OnDeviceModel) -> Family:
        """The family's view of a model. Raises MODEL_NOT_LOADED if the model is not loaded (any more)."""
        found, family = self._models.get(loaded.model.id, (None, None))
        if family is None or found is not loaded:
            message = f"model {loaded.model.id} is not on {self._device}; load it first"
            raise FailedPrecondition(message, ErrorReason.MODEL_NOT_LOADED, model_id=loaded.model.id)
        return family

    def unload(self, model_id: str) -> int:
        """Drop a model; returns the allocator's difference on CUDA, elsewhere the size of its tensors."""
        if model_id not in self._models:
            message = f"model {model_id} is not on {self._device}"
            raise NotFound(message, ErrorReason.LOADED_MODEL_NOT_FOUND, model_id=model_id, device=self._device)
        on_cuda = self._device.type == "cuda"
        before = torch.cuda.memory_allocated(self._device) if on_cuda else 0
        size = self._models.pop(model_id)[0].size_bytes
        self._hardware.free(model_owner(model_id))
        gc.collect()  # a family and its parts refer to each other
        if not on_cuda:
            return size
        torch.cuda.empty_cache()
        return before - torch.cuda.memory_allocated(self._device)


def _same(there: OnDeviceModel, model: Model, precision: str) -> OnDeviceModel:
    if there.model.sha256 == model.sha256 and precision in ("", there.precision):
        return there
    message = f"model {model.id} is loaded already, with other weights or as {there.precision}; unload it first"
    raise FailedPrecondition(message, model_id=model.id, loaded_precision=there.precision, precision=precision)
