"""The kinds of ControlNets by the family that they guide: what must fit, and what computes them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from torch import nn

from domains.inference.on_device.controls import control_net, flux_net, sd3_net, z_image_net
from domains.inference.on_device.controls.control_net import ControlNet
from domains.inference.on_device.controls.guiding_net import GuidingNet
from domains.inference.on_device.controls.union_net import UnionControlNet
from domains.model.on_device import OnDeviceModel


class Kind(NamedTuple):
    """One kind."""

    check: Callable[[Any, OnDeviceModel, str], None]
    """Takes the network, the model and the network's id. Raises MODEL_INCOMPATIBLE if it does not fit."""
    view: Callable[[nn.Module, OnDeviceModel, str], GuidingNet]
    """Makes what computes it, of the same."""


def _of_unet(module: nn.Module, base: OnDeviceModel, control_id: str) -> GuidingNet:
    unet: Any = base.modules["unet"]
    if isinstance(module, ControlNetUnionModel):
        return cast(GuidingNet, UnionControlNet(module))
    reads_sizes = getattr(unet.config, "addition_embed_type", None) == "text_time"
    return cast(GuidingNet, ControlNet(module, pooled_and_sizes=reads_sizes))


def _of_flux(module: nn.Module, base: OnDeviceModel, control_id: str) -> GuidingNet:
    return flux_net.FluxControlNet(module, control_id)


_UNET = Kind(control_net.check_fits, _of_unet)
_KINDS: Mapping[str, Kind] = {
    "sd3": Kind(sd3_net.check_fits, sd3_net.Sd3ControlNet),
    "flux1": Kind(flux_net.check_fits, _of_flux),
    "z_image": Kind(z_image_net.check_fits, z_image_net.ZImageControlNet),
}


def kind_of(base: OnDeviceModel) -> Kind:
    """The kind of ControlNets that guide a model."""
    return _KINDS.get(base.family, _UNET)
