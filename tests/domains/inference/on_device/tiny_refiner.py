"""A tiny refiner of SDXL with random weights, in diffusers' layout."""

from pathlib import Path

from domains.model.model import Model
from tests.domains.inference.on_device.tiny_families import (
    CLIP_WORDS,
    Parts,
    clip_projected,
    trained,
    unet,
    vae,
    write_parts,
)

_WIDTH, _EACH = 40, 504
_PARTS: Parts = {
    "text_encoder_2": ("CLIPTextModelWithProjection", clip_projected(_WIDTH)),
    "tokenizer_2": CLIP_WORDS,
    "unet": (
        "UNet2DConditionModel",
        unet(
            cross_attention_dim=_WIDTH,
            attention_head_dim=(2, 4),
            transformer_layers_per_block=(1, 2),
            addition_embed_type="text_time",
            addition_time_embed_dim=_EACH,
            # Pooled text and five numbers: the width by which a refiner is told from SDXL.
            projection_class_embeddings_input_dim=_WIDTH + 5 * _EACH,
        ),
    ),
    "vae": ("AutoencoderKL", vae(4)),
    "scheduler": ("EulerDiscreteScheduler", trained("epsilon")),
}


def write_tiny_refiner(folder: Path) -> Model:
    """The refiner."""
    return write_parts("StableDiffusionXLImg2ImgPipeline", _PARTS, folder, ("text_encoder", "tokenizer"))
