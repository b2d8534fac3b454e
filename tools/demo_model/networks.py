"""The three networks: made new, read from a folder, and saved as a Stable Diffusion folder."""

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LATENT_SCALE = 0.18215
"""Stable Diffusion's: the VAE is rescaled after its training so that it holds here too."""

SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}

_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [32, 48, 64, 96],
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 16,
    "sample_size": 256,
    "scaling_factor": LATENT_SCALE,
}

_TEXT: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 576,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 192,
}

_UNET: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [64, 96, 128],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3,
    "up_block_types": ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": 192,
    "attention_head_dim": 4,
    "norm_num_groups": 32,
}

_TOKENIZER_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Networks:
    """The parts that are trained."""

    vae: Any
    """AutoencoderKL: 3×256×256 in -1..1 ↔ 4×32×32 latents. Untyped, as diffusers is."""
    text: Any
    """CLIPTextModel: 77 tokens → 77×192."""
    unet: Any
    """UNet2DConditionModel: predicts v of 4×32×32 latents."""

    def on(self, device: torch.device) -> "Networks":
        """The same, moved there."""
        return Networks(vae=self.vae.to(device), text=self.text.to(device), unet=self.unet.to(device))

    def parameter_counts(self) -> dict[str, int]:
        """Numbers in each."""
        parts: dict[str, nn.Module] = {"vae": self.vae, "text": self.text, "unet": self.unet}
        return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}


def new_networks(tokenizer: CLIPTokenizer) -> Networks:
    """Untrained, with random weights: 2.47 M, 1.51 M and 8.99 M parameters."""
    vae = AutoencoderKL(**_VAE)
    marks: dict[str, Any] = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    text = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **_TEXT, **marks))
    return Networks(vae=vae, text=text, unet=UNet2DConditionModel(**_UNET))


def read_networks(folder: Path) -> Networks:
    """Those of an earlier sitting, in float32."""
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32)
    return Networks(vae=vae, text=text, unet=unet)


def save_networks(folder: Path, networks: Networks, tokenizer: CLIPTokenizer, tokenizer_folder: Path) -> None:
    """A whole diffusers folder with float16 weights."""
    scheduler = DPMSolverMultistepScheduler(**SCHEDULE, algorithm_type="dpmsolver++", solver_order=2)
    parts: dict[str, Any] = {
        "vae": _stored(networks.vae),
        "text_encoder": _stored(networks.text),
        "tokenizer": tokenizer,
        "unet": _stored(networks.unet),
        "scheduler": scheduler,
        "safety_checker": None,
        "feature_extractor": None,
    }
    StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(folder, safe_serialization=True)
    weights = folder / "text_encoder" / "model.safetensors"
    write_text_weights(weights, load_file(weights))
    for name in _TOKENIZER_FILES:
        shutil.copy(tokenizer_folder / name, folder / "tokenizer" / name)
    _write_scheduler(folder / "scheduler" / "scheduler_config.json", scheduler)


def write_text_weights(file: Path, weights: dict[str, Tensor]) -> None:
    """With the names that every Stable Diffusion loader knows; transformers 5 leaves out their first part."""
    named = {name if name.startswith("text_model.") else f"text_model.{name}": value for name, value in weights.items()}
    save_file(named, file, metadata={"format": "pt"})


def _stored(part: nn.Module) -> Any:
    copied = copy.deepcopy(part).to("cpu", torch.float16)
    return copied.to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]  # torch's stub lacks it


def _write_scheduler(file: Path, scheduler: Any) -> None:
    """Plain JSON: diffusers would write `-Infinity`."""
    kept = {"_class_name", "_diffusers_version", "algorithm_type", "solver_order", "solver_type", "lower_order_final"}
    config = {"_class_name": "DPMSolverMultistepScheduler", **scheduler.config}
    told = {name: value for name, value in config.items() if name in kept or name in SCHEDULE}
    file.write_text(json.dumps(told, indent=2), "utf-8")
