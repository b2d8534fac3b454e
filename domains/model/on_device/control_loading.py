"""Loads a ControlNet or another network that guides a model, piece by piece, for the model that it guides."""

from collections.abc import Generator, Mapping
from typing import Any, cast

from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel
from diffusers.models.controlnets.controlnet_sd3 import SD3ControlNetModel
from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from diffusers.models.controlnets.controlnet_z_image import ZImageControlNetModel
from torch import nn

from domains.model.detect.controls import UNION
from domains.model.model import Model
from domains.model.on_device.components import built
from domains.model.on_device.network_loading import Check, config_of, loading_network, without_config
from domains.model.on_device.on_device_model import OnDeviceModel
from domains.model.on_device.reading import Ready
from domains.model.on_device.z_image_control import z_image_config
from domains.model.safetensors_header import TensorEntry

_OF_TRANSFORMERS: Mapping[str, Any] = {
    "sd3": SD3ControlNetModel,
    "flux1": FluxControlNetModel,
    "z_image": ZImageControlNetModel,
}
"""By the family of the model. Those of others are of U-Nets."""

_TASKS = "task_embedding"

_OF_UNET = (
    *("in_channels", "flip_sin_to_cos", "freq_shift", "down_block_types", "block_out_channels", "layers_per_block"),
    *("only_cross_attention", "downsample_padding", "mid_block_scale_factor", "act_fn", "norm_num_groups", "norm_eps"),
    *("cross_attention_dim", "transformer_layers_per_block", "attention_head_dim", "num_attention_heads"),
    *("use_linear_projection", "class_embed_type", "addition_embed_type", "addition_time_embed_dim"),
    *("num_class_embeds", "upcast_attention", "resnet_time_scale_shift", "projection_class_embeddings_input_dim"),
)
"""Options that a ControlNet has from the U-Net that it was copied from (diffusers' `ControlNetModel.from_unet`)."""


def loading_controlnet(model: Model, base: OnDeviceModel, check: Check) -> Generator[Ready, None, nn.Module]:
    """Read a ControlNet onto the device of the model that it guides, in the precision of its denoiser.

    `check` is called before any weight is read. Raises COMPONENT_MISSING without what says its shape, and as
    `domains.model.on_device.loading`.
    """
    of_unet = ControlNetUnionModel if model.variant == UNION else ControlNetModel
    kind = _OF_TRANSFORMERS.get(base.family, of_unet)
    config = config_of(model)

    def build(tensors: Mapping[str, TensorEntry]) -> nn.Module:
        # The config of a published union network lies beside those of its variants, which know other numbers of types.
        types = {"num_control_type": tensors[_TASKS].shape[0]} if _TASKS in tensors else {}
        whole = {**(config or _told_by(model, base, tensors)), **types}
        return built(whole, model.id, lambda given: cast(nn.Module, kind.from_config(dict(given))), len(tensors))

    return loading_network(model, base, build, check)


def _told_by(model: Model, base: OnDeviceModel, tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
    """The config of a ControlNet without one, from the model that it guides, or from its tensors. Raises COMPONENT_MISSING
    where they do not tell enough."""
    if base.family == "z_image":
        return z_image_config(model, base, tensors)
    if base.family not in _OF_TRANSFORMERS:
        return {"conditioning_embedding_out_channels": (16, 32, 96, 256), **_copied(base)}
    raise without_config(model)


def _copied(base: OnDeviceModel) -> dict[str, Any]:
    config: Any = base.modules["unet"].config
    # The U-Net of an inpainting model has extra inputs; its ControlNets read the latents alone.
    return {name: config[name] for name in _OF_UNET if name in config} | {"in_channels": config["out_channels"]}
