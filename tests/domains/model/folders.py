"""Writes small models in the diffusers layout: real files, real headers, a few numbers as weights."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from domains.model.catalogue import EMBEDDED

INDEX: Mapping[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}

UNET_TENSORS = (
    "conv_in.weight",
    "time_embedding.linear_1.weight",
    "mid_block.resnets.0.conv1.weight",
    "conv_out.weight",
)

UNET: Mapping[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 64,
}

VAE: Mapping[str, Any] = {"_class_name": "AutoencoderKL", "block_out_channels": [8, 8, 8, 8]}

SCHEDULER: Mapping[str, Any] = {"_class_name": "EulerDiscreteScheduler"}


def write_model(folder: Path, value: float = 1.0) -> Path:
    """A whole Stable Diffusion 1.x folder, as far as headers and configs go; its weights are all `value`."""
    write_json(folder / "model_index.json", INDEX)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_json(folder / "tokenizer" / "tokenizer_config.json", {"model_max_length": 77})
    write_json(folder / "unet" / "config.json", UNET)
    write_json(folder / "vae" / "config.json", VAE)
    write_json(folder / "text_encoder" / "config.json", {"hidden_size": 8})
    write_weights(folder / "unet" / "diffusion_pytorch_model.safetensors", UNET_TENSORS, value)
    write_weights(folder / "vae" / "diffusion_pytorch_model.safetensors", ("decoder.conv_in.weight",), value)
    write_weights(folder / "text_encoder" / "model.safetensors", ("text_model.embeddings",), value)
    return folder


def write_json(path: Path, value: object) -> None:
    """With its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_weights(path: Path, names: tuple[str, ...], value: float = 1.0, dtype: str = "float16") -> None:
    """Each tensor 2×3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.full((2, 3), value, dtype) for name in names}, path)


def age(folder: Path, seconds: float = 3600.0) -> None:
    """Make all files look older, so that their hashes are remembered."""
    then = time.time() - seconds
    for file in folder.rglob("*"):
        os.utime(file, (then, then))


def copy_of_embedded(folder: Path) -> Path:
    """The real demo model, to be spoilt."""
    shutil.copytree(EMBEDDED / "emoji-sd", folder)
    return folder
