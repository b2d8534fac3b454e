"""A model on a device, ready to compute."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from domains.model.execution import Execution
from domains.model.families import FAMILIES
from domains.model.loaded import LoadedComponent, LoadedModel, loaded_id, sources_of
from domains.model.model import Model
from domains.model.on_device.component_turns import ComponentTurns
from domains.model.on_device.host_tier import Skeleton
from domains.model.on_device.leased_map import leased_bytes
from domains.model.on_device.quantized_layers import computed_dtype
from domains.model.on_device.tokenizer import Words


@dataclass(frozen=True, kw_only=True, eq=False)
class OnDeviceModel:
    """Modules with their weights on one device. Drop every reference to give the memory back."""

    model: Model
    """The model that was loaded."""
    device: torch.device
    dtype: torch.dtype
    """Dtype of the denoiser; other parts can have their own."""
    execution: Execution
    """What the load asked for, with the denoiser's precision filled in."""
    modules: Mapping[str, nn.Module]
    """By component id: `unet`, `vae`, `text_encoder`. In eval mode, without gradients."""
    tokenizers: Mapping[str, Words]
    """By the component id of their text encoder. Not thread-safe: only the thread that ticks the step loop uses them."""
    scheduler_config: Mapping[str, object]
    """The model's own scheduler_config.json: prediction type, betas, spacing."""
    bytes_per_component: Mapping[str, int]
    """Measured sizes of the tensors on the device, by component id; of those that take turns, sizes of all weights."""
    load_s: float
    """Wall time of the load, with the turns that other jobs had meanwhile."""
    loaded_at_s: float
    """Unix time of the end of the load."""

    skeleton: Skeleton | None = None
    """What a host tier can keep when the model leaves the device; None: nothing."""
    turns: ComponentTurns | None = None
    """The components that take turns on the device; None: all of them stay there."""

    @property
    def family(self) -> str:
        """`sd1` …"""
        return self.model.family

    @property
    def size_bytes(self) -> int:
        """Bytes of all components."""
        return sum(self.bytes_per_component.values())

    @property
    def held_bytes(self) -> Mapping[str, int]:
        """Bytes of the components that are on the device now."""
        if self.turns is None:
            return self.bytes_per_component
        return {part: self.turns.size_of(part) for part in self.bytes_per_component if part in self.turns.here}

    def bring(self, component: str, layer: str) -> None:
        """Bring a layer of a component (by its path) to the device before its weights are read. It stays until another
        component is brought, or computes."""
        if self.turns is not None:
            self.turns.bring_layer(component, layer)

    @property
    def precision(self) -> str:
        """`dtype` in torch's words: `float32`."""
        return str(self.dtype).removeprefix("torch.")

    def precision_of(self, component: str) -> str:
        """Dtype of one component; a VAE may need more precision than the others."""
        return str(computed_dtype(self.modules[component]) or self.dtype).removeprefix("torch.")

    def quantization_of(self, component: str) -> str:
        """How the weights of a component are stored in fewer bits. Empty: they are not."""
        return self.execution.quantization_of(component, FAMILIES[self.family].denoiser.id)

    def _mapped_bytes(self, name: str, size: int) -> int:
        """Those of a component's bytes that are used in place, or wait in their file."""
        if self.turns is not None:
            return size
        # Only the CPU computes out of a map. Asking the thousands of tensors of a model takes milliseconds.
        return leased_bytes(self.modules[name].state_dict().values()) if self.device.type == "cpu" else 0

    def _component(self, name: str, size: int) -> LoadedComponent:
        return LoadedComponent(
            id=name,
            bytes=size,
            precision=self.precision_of(name),
            quantization=self.quantization_of(name),
            mapped_bytes=self._mapped_bytes(name, size),
            sources=sources_of(self.model, name),
        )

    def value(self, device_id: str) -> LoadedModel:
        """What the server knows of the loaded model. `device_id`: the server's name of the device."""
        sizes = sorted(self.bytes_per_component.items(), key=lambda item: -item[1])
        return LoadedModel(
            id=loaded_id(self.model.id, device_id),
            model_id=self.model.id,
            device_id=device_id,
            components=tuple(self._component(name, size) for name, size in sizes),
            load_time_s=self.loaded_at_s,
            last_use_time_s=time.time(),
            model_sha256=self.model.sha256,
            load_s=self.load_s,
            offload=self.execution.offload,
            offload_budget_bytes=self.execution.offload_budget_bytes,
            ways=self.execution.ways,
            asked=self.execution,
        )
