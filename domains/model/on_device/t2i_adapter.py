"""Loads a T2I adapter, which reads a control map once for all steps."""

from collections.abc import Generator, Mapping
from typing import Any, cast

from diffusers.models.adapter import T2IAdapter
from torch import nn

from domains.model.model import Model
from domains.model.on_device.components import built
from domains.model.on_device.network_loading import config_of, loading_network
from domains.model.on_device.on_device_model import OnDeviceModel
from domains.model.on_device.reading import Ready
from domains.model.safetensors_header import TensorEntry

_OPTIONS = ("in_channels", "channels", "num_res_blocks", "downscale_factor", "adapter_type")
_PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "sdxl": {"adapter_type": "full_adapter_xl", "downscale_factor": 16},
}
"""By family: config of a file without a config.json, where it differs from diffusers' defaults."""


def loading_t2i_adapter(model: Model, base: OnDeviceModel) -> Generator[Ready, None, nn.Module]:
    """Read a T2I adapter onto the device of a model. Raises as `loading_network`."""
    config = config_of(model) or _of_published(model, base)

    def build(tensors: Mapping[str, TensorEntry]) -> nn.Module:
        return built(config, model.id, _adapter, len(tensors))

    return loading_network(model, base, build)


def _of_published(model: Model, base: OnDeviceModel) -> Mapping[str, Any]:
    own = _PUBLISHED.get(base.family, {})
    light = {"adapter_type": "light_adapter", "num_res_blocks": 4} if model.variant == "light" else {}
    return {**own, **light}


def _adapter(config: Mapping[str, Any]) -> nn.Module:
    return cast(nn.Module, T2IAdapter(**{name: config[name] for name in _OPTIONS if name in config}))
