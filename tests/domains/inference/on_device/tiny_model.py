"""A Stable Diffusion of random weights, small enough to run a step in milliseconds, in the diffusers layout."""

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from transformers import CLIPTextConfig, CLIPTextModel

from domains.model.diffusers_folder import read_folder
from domains.model.fingerprint import Fingerprints
from domains.model.model import Model
from tests.domains.inference.on_device.requests import embedded_model


def write_tiny_model(folder: Path, prediction_type: str = "epsilon", vae_levels: int = 2) -> Model:
    """Three UNet levels, one without attention; with two VAE levels a latent pixel is 2×2 pixels."""
    torch.manual_seed(0)
    words = Path(embedded_model().folder) / "tokenizer"
    shutil.copytree(words, folder / "tokenizer")
    for path in (folder / "tokenizer").iterdir():
        path.chmod(0o644)
    _unet().save_pretrained(folder / "unet")
    _vae(vae_levels).save_pretrained(folder / "vae")
    _text().save_pretrained(folder / "text_encoder")
    EulerDiscreteScheduler(
        prediction_type=prediction_type,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(_INDEX)
    return tiny_model(folder)


def tiny_model(folder: Path) -> Model:
    """What a scan says of the folder."""
    return read_folder(folder, folder.name, lambda path: path, Fingerprints())


def weight_files(model: Model) -> list[Path]:
    """All weight files of a model."""
    return sorted(Path(model.folder).rglob("*.safetensors"))


_INDEX = """{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.36.0",
"safety_checker": [null, null], "feature_extractor": [null, null], "requires_safety_checker": false,
"scheduler": ["diffusers", "EulerDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
"tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
"vae": ["diffusers", "AutoencoderKL"]}"""


def _unet() -> UNet2DConditionModel:
    attention, plain = "CrossAttn{}Block2D", "{}Block2D"
    shape: dict[str, Any] = {
        "down_block_types": tuple(kind.format("Down") for kind in (attention, plain, attention)),
        "up_block_types": tuple(kind.format("Up") for kind in (attention, plain, attention)),
    }
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=2,
        cross_attention_dim=24,
        **shape,
    )


def _vae(levels: int) -> AutoencoderKL:
    shape: dict[str, Any] = {
        "block_out_channels": (16,) * levels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return AutoencoderKL(norm_num_groups=8, sample_size=32, **shape)


def _text() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=2014,
        bos_token_id=2012,
        eos_token_id=2013,
        pad_token_id=2013,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    return CLIPTextModel(config)
