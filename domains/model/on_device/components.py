"""How the parts of each family are built from the configs in a model's folder: empty modules, no weights yet."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from domains.errors import DataLoss, ErrorReason, FailedPrecondition

Builder = Callable[[Mapping[str, Any]], nn.Module]


def _unet(config: Mapping[str, Any]) -> nn.Module:
    return cast(nn.Module, UNet2DConditionModel.from_config(dict(config)))


def _vae(config: Mapping[str, Any]) -> nn.Module:
    return cast(nn.Module, AutoencoderKL.from_config(dict(config)))


def _clip_text(config: Mapping[str, Any]) -> nn.Module:
    return CLIPTextModel(CLIPTextConfig(**config))


BUILDERS: Mapping[str, Mapping[str, Builder]] = {
    "sd1": {"text_encoder": _clip_text, "unet": _unet, "vae": _vae},
}
"""Family → the components with weights that it needs, in loading order. A new family is a new line."""


def build(folder: Path, component: str, builder: Builder) -> nn.Module:
    """An empty module on `meta`, in eval mode, as the component's config.json describes it."""
    config = read_config(folder, component, "config.json")
    try:
        with torch.device("meta"):
            module = builder(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        message = f"{component}/config.json describes no module that can be built: {error}"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=component, file="config.json") from error
    return module.eval().requires_grad_(False)


def read_config(folder: Path, component: str, name: str) -> Mapping[str, Any]:
    """A component's JSON file. Raises COMPONENT_MISSING or MODEL_CORRUPT, naming it."""
    path = folder / component / name
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"the model has no {component}/{name}; restore the file and scan again"
        raise FailedPrecondition(message, ErrorReason.COMPONENT_MISSING, component=component, file=name) from error
    except ValueError as error:
        message = f"{component}/{name} is not JSON: {error}; replace the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=component, file=name) from error
    if not isinstance(config, dict):
        message = f"{component}/{name} holds no JSON object; replace the file"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component=component, file=name)
    return config


def tokenizer(folder: Path) -> CLIPTokenizer:
    """The model's own tokenizer. Raises COMPONENT_MISSING or MODEL_CORRUPT."""
    read_config(folder, "tokenizer", "tokenizer_config.json")
    try:
        return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        message = f"the files in tokenizer/ cannot be read: {error}; replace them"
        raise DataLoss(message, ErrorReason.MODEL_CORRUPT, component="tokenizer") from error
