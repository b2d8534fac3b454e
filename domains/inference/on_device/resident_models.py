"""Holds the models that are loaded on one device, or on their way there."""

import gc
from collections.abc import Callable

import torch
from torch import nn

from domains.errors import ErrorReason, FailedPrecondition, NotFound
from domains.inference.on_device.families.family import KeepOn, regardless
from domains.inference.on_device.hardware import Hardware, model_owner
from domains.inference.on_device.model_load import ModelLoad
from domains.inference.solvers.plan import try_config
from domains.model.execution import Execution
from domains.model.model import Model
from domains.model.on_device import HostTier, OnDeviceModel, SharedModules, loading, skeleton_key


class ResidentModels:
    """Models by id."""

    def __init__(
        self, device: torch.device, hardware: Hardware, tier: HostTier | None = None, keep_on: KeepOn = regardless
    ) -> None:
        """`tier` None: a new one on CUDA, none elsewhere, where the device computes in host memory. `keep_on`: see
        `InTurns`."""
        self.device = device
        self._hardware = hardware
        self._keep_on = keep_on
        self._models: dict[str, ModelLoad] = {}
        self._shared = SharedModules()
        self.tier = HostTier() if tier is None and device.type == "cuda" else tier
        """What stays in host memory of models that leave the device."""

    def ids(self) -> list[str]:
        """Ids of all loaded models."""
        return list(self._models)

    def contents(self) -> set[str]:
        """Hashes of their weights."""
        return {one.model.sha256 for one in self._models.values()}

    def sizes(self) -> dict[str, int]:
        """Bytes of each model, by id. A component that models share counts at the first of them."""
        seen: set[nn.Module] = set()
        return {model_id: one.size_beside(seen) for model_id, one in self._models.items()}

    def shared_bytes(self) -> int:
        """Bytes that families hold for jobs that share forwards."""
        return sum(one.there[1].shared_bytes() for one in self._models.values() if one.there is not None)

    def loaded(self, model_id: str) -> OnDeviceModel:
        """A model that is completely loaded. Raises MODEL_NOT_LOADED."""
        one = self._models.get(model_id)
        if one is None or one.there is None or not one.settled:
            message = f"model {model_id} is not on {self.device}; load it first"
            raise FailedPrecondition(message, ErrorReason.MODEL_NOT_LOADED, model_id=model_id)
        return one.there[0]

    def bring(self, job_id: str, model: Model, execution: Execution, *, named: bool = True) -> ModelLoad:
        """The model, or its load, begun here if there is none, for a job that leaves it with `leave`. `named`: whether the
        request names the offloading; else a model that is there is taken as it is.

        Raises ILLEGAL_STATE if a component of the model is there in another precision or quantization than the job asks for.
        """
        there = self._models.get(model.id)
        if there is None or there.failure is not None:
            steps = loading(model, str(self.device), execution, try_config, self._shared, self.tier)
            there = ModelLoad(model, execution, steps, self._hardware, self._account, self._keep_on)
            self._models[model.id] = there
        _same(there, model, execution, named=named)
        there.users.add(job_id)
        return there

    def outdated(self, model: Model) -> bool:
        """Whether the weights of a model that is here differ from those that the model's last scan saw."""
        there = self._models.get(model.id)
        return there is not None and there.model.sha256 != model.sha256

    def leave(self, job_id: str, load: ModelLoad) -> None:
        """Note that a job needs the load no more. Cancels one that no job waits for; a complete model stays."""
        load.users.discard(job_id)
        if not load.settled and not load.users:
            if load.failure is None:
                load.close()
            if self._models.get(load.model.id) is load:
                del self._models[load.model.id]

    def rest(self, used: Callable[[str], bool]) -> None:
        """Take the components off the device that were there for their turn, of all models that are not used (id)."""
        for model_id, one in self._models.items():
            if one.in_turns and not used(model_id):
                one.rest()

    def unload(self, model_id: str) -> int:
        """Drop a model; returns the allocator's difference on CUDA, elsewhere the size of its tensors.

        Components that other models share stay.
        """
        if model_id not in self._models:
            message = f"model {model_id} is not on {self.device}"
            raise NotFound(message, ErrorReason.LOADED_MODEL_NOT_FOUND, model_id=model_id, device=self.device)
        on_cuda = self.device.type == "cuda"
        before = torch.cuda.memory_allocated(self.device) if on_cuda else 0
        size = sum(self.sizes().values())
        one = self._models.pop(model_id)
        self._keep(one)
        one.close()
        self._account()
        size -= sum(self.sizes().values())
        gc.collect()  # a family and its parts refer to each other
        if on_cuda:
            torch.cuda.empty_cache()
        return before - torch.cuda.memory_allocated(self.device) if on_cuda else size

    def _keep(self, one: ModelLoad) -> None:
        """Keep what the host tier can keep of a model that leaves the device."""
        loaded = None if one.there is None else one.there[0]
        if self.tier is None or loaded is None or loaded.skeleton is None:
            return
        others = [other.there[0] for other in self._models.values() if other.there is not None]
        used = {module for other in others for module in other.modules.values()}
        self.tier.keep(skeleton_key(loaded.model, loaded.execution), loaded.skeleton, used)

    def _account(self) -> None:
        """Tell the hardware which model holds how much."""
        for model_id, size in self.sizes().items():
            self._hardware.hold(model_owner(model_id), size)


def _same(there: ModelLoad, model: Model, execution: Execution, *, named: bool) -> None:
    """Raise ILLEGAL_STATE if the loaded model has other weights, precision, quantization, offloading or ways than the job
    asks for."""
    if named and execution.offload and not there.offloads_as(execution):
        how = there.told_offload
        raise FailedPrecondition(f"model {model.id} is loaded already, {how}; unload it first", model_id=model.id)
    if named and (other := execution.ways.other_than(there.ways)) is not None:
        name, way = other
        how = f"with {'no ' if way in (None, '') else ''}{name}{'' if way in (None, '') else f' {str(way).lower()}'}"
        raise FailedPrecondition(f"model {model.id} is loaded already, {how}; unload it first", model_id=model.id)
    if execution.quantization and there.quantization != execution.quantization:
        how = f"with its denoiser quantized as {there.quantization}, not {execution.quantization}"
        message = f"model {model.id} is loaded already, {how}; unload it first"
        raise FailedPrecondition(message, model_id=model.id, loaded_quantization=there.quantization)
    wanted = {component.id: execution.asked_of(component.id) for component in model.components}
    has = {component: there.precision_of(component) for component, precision in wanted.items() if precision}
    other = next((component for component, precision in has.items() if precision not in ("", wanted[component])), None)
    if there.model.sha256 == model.sha256 and other is None:
        return
    how = f"with {other} as {has[other]}, not {wanted[other]}" if other else "with other weights"
    message = f"model {model.id} is loaded already, {how}; unload it first"
    raise FailedPrecondition(
        message, model_id=model.id, component=other or "", loaded_precision=has.get(other or "", "")
    )
