"""A model as large as SDXL, of random weights and without network, that the present engine computes.

The UNet is SDXL's own config without the inputs that SD 1.x lacks; the text encoder is as wide as the UNet asks for.
"""

import json
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from domains.model.model import Model
from tests.domains.inference.on_device.tiny_model import tiny_model, write_tiny_model

UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 1024,
}
TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 12,
    "num_attention_heads": 32,
}
_BLOCK = 32 * 1024 * 1024
"""Values that are drawn; the files repeat them."""


@dataclass(frozen=True)
class Sizes:
    """What a model differs in from SDXL's size: values of its parts' configs."""

    unet: dict[str, Any] = field(default_factory=dict[str, Any])
    vae: dict[str, Any] = field(default_factory=dict[str, Any])
    text: dict[str, Any] = field(default_factory=dict[str, Any])
    dtype: torch.dtype = torch.bfloat16


def write_large_model(folder: Path, seed: int, sizes: Sizes | None = None) -> Model:
    """Write the model (`sizes` None: 6.7 GB in bfloat16) and scan it. Its page cache is warm afterwards."""
    sizes = sizes or Sizes(unet=UNET)
    write_tiny_model(folder)
    values = torch.randn(_BLOCK, generator=torch.Generator().manual_seed(seed)).mul_(0.02).to(sizes.dtype)
    block = values.view(torch.uint8).numpy().tobytes()
    with torch.device("meta"):
        parts: dict[str, tuple[nn.Module, str]] = {
            "unet": (UNet2DConditionModel(**sizes.unet), "diffusion_pytorch_model.safetensors"),
            "vae": (AutoencoderKL(**(VAE | sizes.vae)), "diffusion_pytorch_model.safetensors"),
            "text_encoder": (CLIPTextModel(CLIPTextConfig(**(TEXT | sizes.text))), "model.safetensors"),
        }
    for name, (module, file) in parts.items():
        write_weights(folder / name / file, module, block, sizes.dtype)
        config: Any = module.config
        text = config.to_dict() if name == "text_encoder" else {**config, "_class_name": type(module).__name__}
        (folder / name / "config.json").write_text(json.dumps(text))
    for path in folder.rglob("*"):
        # The scan trusts the time of a file only when it is old enough.
        os.utime(path, (1e9, 1e9))
    return tiny_model(folder)


def write_weights(path: Path, module: nn.Module, block: bytes, dtype: torch.dtype) -> None:
    """Write a `meta` module's floats as a safetensors file that repeats a block of bytes."""
    stored = {torch.bfloat16: "BF16", torch.float32: "F32"}[dtype]
    header: dict[str, Any] = {}
    size = 0
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            end = size + dtype.itemsize * tensor.numel()
            header[name] = {"dtype": stored, "shape": list(tensor.shape), "data_offsets": [size, end]}
            size = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for begin in range(0, size, len(block)):
            file.write(block[: min(len(block), size - begin)])
