"""Stable Diffusion XL refiner: OpenCLIP-bigG alone, a wider U-Net for the last steps of SDXL base."""

from domains.model.families.family import Family
from domains.model.families.parts import CLIP_TOKENIZERS, CLIP_TOKENS, denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import must, usual
from domains.model.families.unet import UNET_CONFIG, UNET_KEYS, unet
from domains.model.kind import ModelKind

SDXL_REFINER = Family(
    id="sdxl_refiner",
    display_name="Stable Diffusion XL refiner",
    base="sdxl",
    kind=ModelKind.REFINER,
    # Its only text encoder is the second one of SDXL, and keeps that name.
    parts=(
        text_encoder(2, ("CLIPTextModelWithProjection",), CLIP_TOKENS, "conditioner.embedders.0.model."),
        denoiser("unet", "UNet2DConditionModel"),
        vae(),
        tokenizer(2, *CLIP_TOKENIZERS),
        scheduler(),
    ),
    layouts=unet(
        diffusers=(
            # Pooled text (1280) and five numbers as 256 each.
            must("add_embedding.linear_1.weight", None, 2560),
            usual("down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k.weight", 768, 1280),
        ),
        original=(
            must("label_emb.0.0.weight", None, 2560),
            usual("input_blocks.4.1.transformer_blocks.1.attn2.to_k.weight", 768, 1280),
        ),
        without_diffusers=("encoder_hid_proj.",),
    ),
    config={**UNET_CONFIG, "addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 2560},
    config_keys=(*UNET_KEYS, "add_embedding.linear_1.weight"),
    native_px=1024,
    alignment_px=8,
    prompt_tokens=CLIP_TOKENS,
    default_guidance=5.0,
    prediction_types=("epsilon",),
    latent_channels=4,
    tasks=("image_to_image",),
    reads_windows=True,
    reads_sizes=True,
    computed=True,
)
