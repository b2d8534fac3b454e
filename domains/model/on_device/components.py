"""How the parts of each family are built from the configs in a model's folder: empty modules, no weights yet."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.auraflow_transformer_2d import AuraFlowTransformer2DModel
from diffusers.models.transformers.transformer_chroma import ChromaTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from domains.errors import ErrorReason, FailedPrecondition, excerpt
from domains.model.component_config import read_config
from domains.model.model import Model
from domains.system_errors import wrapped_system_error

Builder = Callable[[Mapping[str, Any]], nn.Module]

_MODULES_PER_TENSOR, _FEW_MODULES = 4, 64
"""A config may describe at most this many modules for each tensor of its files, and a few more. Real models have fewer."""

_CLIP_OPTIONS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id"),
    "projection_dim",
)
"""All options that shape the text encoder. Others are not passed on, because they could choose code to run."""

_T5_OPTIONS = (
    *("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "layer_norm_epsilon", "feed_forward_proj"),
    *("relative_attention_num_buckets", "relative_attention_max_distance", "pad_token_id", "eos_token_id"),
)
"""The same for T5."""

_QWEN3_OPTIONS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim"),
    *("num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "attention_bias"),
    *("rope_theta", "rope_scaling", "rope_parameters", "use_sliding_window", "sliding_window", "max_window_layers"),
    *("layer_types", "pad_token_id", "bos_token_id", "eos_token_id"),
)
"""The same for Qwen3."""


class _Unfilled(TorchFunctionMode):
    """Skips the random initialization of weights, which takes a quarter of the build time on `meta`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


class _TooManyModules(Exception):
    """The config describes more modules than the weights can fill."""


def _unet(config: Mapping[str, Any]) -> nn.Module:
    return cast(nn.Module, UNet2DConditionModel.from_config(dict(config)))


def _vae(config: Mapping[str, Any]) -> nn.Module:
    return cast(nn.Module, AutoencoderKL.from_config(dict(config)))


def _clip_text(config: Mapping[str, Any]) -> nn.Module:
    return CLIPTextModel(CLIPTextConfig(**_chosen(config, _CLIP_OPTIONS)))


def _clip_projected(config: Mapping[str, Any]) -> nn.Module:
    return CLIPTextModelWithProjection(CLIPTextConfig(**_chosen(config, _CLIP_OPTIONS)))


def _chosen(config: Mapping[str, Any], options: Sequence[str]) -> dict[str, Any]:
    return {name: config[name] for name in options if name in config}


def _t5(config: Mapping[str, Any]) -> nn.Module:
    return _unshared(T5EncoderModel(T5Config(**_chosen(config, _T5_OPTIONS))))


def _umt5(config: Mapping[str, Any]) -> nn.Module:
    return _unshared(UMT5EncoderModel(UMT5Config(**_chosen(config, _T5_OPTIONS))))


def _unshared(module: Any) -> nn.Module:
    # The encoder's own embedding is the same tensor under another name, and the one that is read.
    del module.shared
    return module


def _qwen3(config: Mapping[str, Any]) -> nn.Module:
    return Qwen3Model(Qwen3Config(**_chosen(config, _QWEN3_OPTIONS)))


def _of_class(kind: Any) -> Builder:
    return lambda config: cast(nn.Module, kind.from_config(dict(config)))


_SD3, _FLUX = _of_class(SD3Transformer2DModel), _of_class(FluxTransformer2DModel)

BUILDERS: Mapping[str, Mapping[str, Builder]] = {
    "sd1": {"text_encoder": _clip_text, "unet": _unet, "vae": _vae},
    "sd2": {"text_encoder": _clip_text, "unet": _unet, "vae": _vae},
    "sdxl": {"text_encoder": _clip_text, "text_encoder_2": _clip_projected, "unet": _unet, "vae": _vae},
    "sdxl_refiner": {"text_encoder_2": _clip_projected, "unet": _unet, "vae": _vae},
    "sd3": {
        **{"text_encoder": _clip_projected, "text_encoder_2": _clip_projected, "text_encoder_3": _t5},
        **{"transformer": _SD3, "vae": _vae},
    },
    "flux1": {"text_encoder": _clip_text, "text_encoder_2": _t5, "transformer": _FLUX, "vae": _vae},
    "chroma": {"text_encoder": _t5, "transformer": _of_class(ChromaTransformer2DModel), "vae": _vae},
    "auraflow": {"text_encoder": _umt5, "transformer": _of_class(AuraFlowTransformer2DModel), "vae": _vae},
    "z_image": {"text_encoder": _qwen3, "transformer": _of_class(ZImageTransformer2DModel), "vae": _vae},
}
"""Family → the components with weights that it needs, in loading order. A new family is a new line."""


def build(model: Model, component: str, builder: Builder, tensors: int) -> nn.Module:
    """An empty module on `meta`, in eval mode, as the component's config.json describes it.

    `tensors`: how many its files have, which limits the modules that are built. Raises COMPONENT_MISSING, MODEL_CORRUPT
    (no JSON), MODEL_INCOMPATIBLE (nothing that can be built).
    """
    return built(read_config(model, component, "config.json"), component, builder, tensors)


def built(config: Mapping[str, Any], component: str, builder: Builder, tensors: int) -> nn.Module:
    """`build` from a config that was read. Raises MODEL_INCOMPATIBLE."""
    try:
        _refuse_more_layers(config, tensors)
        with torch.device("meta"), _Unfilled(), _at_most(_MODULES_PER_TENSOR * tensors + _FEW_MODULES):
            module = builder(config)
    except Exception as error:  # what a library raises for a config that it cannot use is not specified
        # A config can ask for more memory than there is.
        if not isinstance(error, MemoryError) and (known := wrapped_system_error(error)):
            raise known from error
        what = "more modules than there are weights for" if isinstance(error, _TooManyModules) else f"{error}"
        message = f"{component}/config.json describes no module that can be built: {excerpt(what)}"
        facts = {"component": component, "file": "config.json"}
        raise FailedPrecondition(message, ErrorReason.MODEL_INCOMPATIBLE, **facts) from error
    return module.eval().requires_grad_(False)


def _refuse_more_layers(config: Mapping[str, Any], tensors: int) -> None:
    """Raise _TooManyModules for more layers than tensors. Diffusers makes a list of their number before it builds one."""
    for name, value in config.items():
        counts = cast(Sequence[object], value) if isinstance(value, list) else [value]
        if "layers" in name and any(isinstance(count, int) and count > tensors for count in counts):
            raise _TooManyModules


@contextmanager
def _at_most(modules: int) -> Generator[None]:
    """Let this process create so many modules; the next one raises _TooManyModules."""
    left = modules

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooManyModules

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
