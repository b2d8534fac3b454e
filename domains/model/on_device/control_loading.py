"""Loads a ControlNet or another network that guides a model, piece by piece, for the model that it guides."""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, suppress
from typing import Any, cast

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from torch import nn

from domains.device.on_device.torch_errors import translate
from domains.errors import ErrorReason, FailedPrecondition
from domains.model.json_file import read_object
from domains.model.model import Model
from domains.model.on_device.components import Builder, built
from domains.model.on_device.layout import picture_layout
from domains.model.on_device.on_device_model import OnDeviceModel
from domains.model.on_device.reading import NOW, Ready
from domains.model.on_device.weights import Filling, plan
from domains.model.weight_file import WeightFile, open_judged

_CONFIG = "config.json"
_OF_UNET = (
    *("in_channels", "flip_sin_to_cos", "freq_shift", "down_block_types", "block_out_channels", "layers_per_block"),
    *("only_cross_attention", "downsample_padding", "mid_block_scale_factor", "act_fn", "norm_num_groups", "norm_eps"),
    *("cross_attention_dim", "transformer_layers_per_block", "attention_head_dim", "num_attention_heads"),
    *("use_linear_projection", "class_embed_type", "addition_embed_type", "addition_time_embed_dim"),
    *("num_class_embeds", "upcast_attention", "resnet_time_scale_shift", "projection_class_embeddings_input_dim"),
)
"""Options that a ControlNet has from the U-Net that it was copied from (diffusers' `ControlNetModel.from_unet`)."""

Check = Callable[[Any], None]
"""Takes the built module. Raises if it does not fit."""


def loading_controlnet(model: Model, base: OnDeviceModel, check: Check) -> Generator[Ready, None, nn.Module]:
    """Read a ControlNet onto the device of the model that it guides, in the precision of its denoiser.

    `check` is called before any weight is read. Raises as `domains.model.on_device.loading`.
    """
    config = config_of(model) or {"conditioning_embedding_out_channels": (16, 32, 96, 256), **_copied(base)}
    return _loading(model, base, lambda given: cast(nn.Module, ControlNetModel.from_config(dict(given))), config, check)


def config_of(model: Model) -> dict[str, Any]:
    """The config.json beside the weights. Empty: there is none."""
    if not any(file.path == _CONFIG for file in model.files):
        return {}
    with open_judged(model, _CONFIG) as file:
        return read_object(file, _CONFIG, component=model.id, file=_CONFIG)


def _copied(base: OnDeviceModel) -> dict[str, Any]:
    config: Any = base.modules["unet"].config
    # A model for inpainting has inputs of its own; its ControlNets read the latents alone.
    return {name: config[name] for name in _OF_UNET if name in config} | {"in_channels": config["out_channels"]}


def _loading(
    model: Model, base: OnDeviceModel, builder: Builder, config: Mapping[str, Any], check: Check
) -> Generator[Ready, None, nn.Module]:
    paths = [file.path for file in model.files if file.path.endswith(".safetensors")]
    if not paths:
        message = f"{model.id} has no safetensors file; restore it and scan again"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, model_id=model.id)
    module: nn.Module | None = None
    try:
        with ExitStack() as closing:
            files = [closing.enter_context(WeightFile(model, path)) for path in paths]
            for file in files:
                for _ in file.checked():
                    yield NOW
            module = built(config, model.id, builder, sum(len(file.tensors) for file in files))
            check(module)
            slots = plan(module, model.id, files, base.dtype, picture_layout(base.device))
            with Filling(base.device) as filling:
                for read in filling.fill(module, slots):
                    yield read.ready
                yield filling.ended()
            for file in files:
                file.check_unchanged()
        return module
    except BaseException as error:
        with suppress(RuntimeError):
            if module is not None:
                module.to("meta")
            if base.device.type == "cuda":
                torch.cuda.empty_cache()
        if not isinstance(error, Exception):
            raise
        raise translate(error, base.device, f"loading {model.id}") from None
