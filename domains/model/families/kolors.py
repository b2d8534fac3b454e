"""Kolors (Kuaishou 2024): the U-Net of SDXL behind a projection of ChatGLM's states."""

from domains.model.families.family import Family
from domains.model.families.parts import denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import must
from domains.model.families.unet import UNET_CONFIG, UNET_KEYS, unet

KOLORS = Family(
    id="kolors",
    display_name="Kolors",
    base="sdxl",
    parts=(
        text_encoder(1, ("ChatGLMModel",), 256),
        denoiser("unet", "UNet2DConditionModel"),
        vae(),
        tokenizer(1, "ChatGLMTokenizer"),
        scheduler(),
    ),
    layouts=unet(
        diffusers=(
            must("encoder_hid_proj.weight", None, 4096),
            must("add_embedding.linear_1.weight", None, 5632),
        ),
    ),
    config={**UNET_CONFIG, "addition_embed_type": "text_time", "encoder_hid_dim": 4096},
    config_keys=(*UNET_KEYS, "encoder_hid_proj.weight"),
    native_px=1024,
    alignment_px=8,
    prompt_tokens=256,
    default_guidance=5.0,
    prediction_types=("epsilon",),
    latent_channels=4,
)
