"""Models of every computed family with random weights, small enough to run a step in milliseconds, in diffusers' layout."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from domains.model.model import Model
from tests.domains.inference.on_device.requests import embedded_model
from tests.domains.inference.on_device.tiny_model import tiny_model

Make = Callable[[Path], Any]
"""Writes one component into its folder, or makes what does it with `save_pretrained`."""

_theirs: Any = diffusers  # which imports its classes when they are asked for

_WORDS = 2014
"""Words of the embedded model's tokenizer."""


def write_tiny_family(name: str, folder: Path, without: tuple[str, ...] = ()) -> Model:
    """A model of a family; `without` leaves out optional components."""
    torch.manual_seed(0)
    pipeline, makers = TINY[name]
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.36.0"}
    for part, (class_name, make) in makers.items():
        if part in without:
            index[part] = [None, None]
            continue
        (folder / part).mkdir(parents=True)
        made = make(folder / part)
        if made is not None:
            made.save_pretrained(folder / part)
        library = "diffusers" if hasattr(diffusers, class_name) else "transformers"
        index[part] = [library, class_name]
    (folder / "model_index.json").write_text(json.dumps(index))
    return tiny_model(folder)


def _clip_tokenizer(folder: Path) -> None:
    for path in (Path(embedded_model().folder) / "tokenizer").iterdir():
        shutil.copyfile(path, folder / path.name)


def _clip_config(width: int, projection: int) -> Any:
    return transformers.CLIPTextConfig(
        vocab_size=_WORDS,
        bos_token_id=2012,
        eos_token_id=2013,
        pad_token_id=2013,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=projection,
    )


def _clip(width: int) -> Make:
    return lambda folder: transformers.CLIPTextModel(_clip_config(width, width))


def _clip_projected(width: int) -> Make:
    return lambda folder: transformers.CLIPTextModelWithProjection(_clip_config(width, width))


def _unet(**changes: Any) -> Make:
    shape: dict[str, Any] = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return lambda folder: _theirs.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        use_linear_projection=True,
        **{**shape, **changes},
    )


def _vae(channels: int, **changes: Any) -> Make:
    """A latent pixel is 2×2 pixels: 8×8 of published models, so that tests need few."""
    shape: dict[str, Any] = {
        "block_out_channels": (16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return lambda folder: _theirs.AutoencoderKL(
        norm_num_groups=8, sample_size=32, latent_channels=channels, **shape, **changes
    )


def _scheduler(kind: Any, **options: Any) -> Make:
    return lambda folder: kind(**options)


def _trained(prediction_type: str) -> Make:
    return _scheduler(
        _theirs.EulerDiscreteScheduler,
        prediction_type=prediction_type,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
    )


_CLIP_WORDS = ("CLIPTokenizer", _clip_tokenizer)

TINY: Mapping[str, tuple[str, Mapping[str, tuple[str, Make]]]] = {
    "sd2": (
        "StableDiffusionPipeline",
        {
            "text_encoder": ("CLIPTextModel", _clip(32)),
            "tokenizer": _CLIP_WORDS,
            "unet": ("UNet2DConditionModel", _unet(cross_attention_dim=32, attention_head_dim=(2, 4))),
            "vae": ("AutoencoderKL", _vae(4)),
            "scheduler": ("EulerDiscreteScheduler", _trained("v_prediction")),
        },
    ),
    "sdxl": (
        "StableDiffusionXLPipeline",
        {
            "text_encoder": ("CLIPTextModel", _clip(16)),
            "text_encoder_2": ("CLIPTextModelWithProjection", _clip_projected(32)),
            "tokenizer": _CLIP_WORDS,
            "tokenizer_2": _CLIP_WORDS,
            "unet": (
                "UNet2DConditionModel",
                _unet(
                    cross_attention_dim=48,
                    attention_head_dim=(2, 4),
                    transformer_layers_per_block=(1, 2),
                    addition_embed_type="text_time",
                    addition_time_embed_dim=464,
                    # Pooled text and six numbers: the width by which SDXL is told from its refiner.
                    projection_class_embeddings_input_dim=32 + 6 * 464,
                ),
            ),
            "vae": ("AutoencoderKL", _vae(4)),
            "scheduler": ("EulerDiscreteScheduler", _trained("epsilon")),
        },
    ),
}
"""By family: the class of the pipeline, and of each component its class and how it is made."""
