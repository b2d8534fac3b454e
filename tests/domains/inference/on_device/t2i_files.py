"""T2I adapters with random values, on disk, and tiny models that they fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import msgspec
import torch

from domains.model.kind import ModelKind
from domains.model.model import Model
from tests.domains.inference.on_device.control_files import control_model
from tests.domains.inference.on_device.tiny_families import TINY, unet, write_parts

_theirs: Any = diffusers


def write_t2i(folder: Path, seed: int, channels: Sequence[int], **config: Any) -> Model:
    """A T2I adapter as the catalogue gives it when a job names it. No scan could tell tiny ones."""
    torch.manual_seed(seed)
    net = _theirs.T2IAdapter(channels=list(channels), num_res_blocks=1, **config)
    for parameter in net.parameters():
        # Strong enough to show in the pictures.
        torch.nn.init.normal_(parameter, std=0.1)
    net.save_pretrained(folder)
    return msgspec.structs.replace(control_model(folder), kind=ModelKind.T2I_ADAPTER)


def three_levels(folder: Path) -> Any:
    """A U-Net as SDXL has it, whose first level has no attention."""
    return _theirs.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=48,
        attention_head_dim=(2, 4, 4),
        transformer_layers_per_block=(1, 1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=464,
        projection_class_embeddings_input_dim=32 + 6 * 464,
    )


ATTENTION_FIRST: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": (2, 4),
}
"""What makes a tiny U-Net of two levels like that of SD 1.x and 2.x, whose last level has no attention."""


def write_adapted(name: str, folder: Path) -> Model:
    """A tiny model of a family whose levels are as T2I adapters need them."""
    pipeline, parts = TINY[name]
    made = three_levels if name == "sdxl" else unet(**ATTENTION_FIRST)
    return write_parts(pipeline, {**parts, "unet": ("UNet2DConditionModel", made)}, folder)
