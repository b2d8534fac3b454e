"""CogView4 (Z.ai 2025): GLM, a transformer over text and picture, a 16-channel VAE."""

from domains.model.families.family import Family
from domains.model.families.parts import denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import Layout, must

COGVIEW4 = Family(
    id="cogview4",
    display_name="CogView4",
    parts=(
        text_encoder(1, ("GlmModel",), 1024),
        denoiser("transformer", "CogView4Transformer2DModel"),
        vae(),
        tokenizer(1),
        scheduler(),
    ),
    layouts=(
        Layout(
            name="diffusers",
            signs=(
                must("patch_embed.text_proj.weight", None, 4096),
                must("patch_embed.proj.weight", None, 64),
                must("time_condition_embed.condition_embedder.linear_1.weight"),
                must("transformer_blocks.0.attn1.to_q.weight"),
                must("proj_out.weight", 64, None),
            ),
        ),
    ),
    config={"_class_name": "CogView4Transformer2DModel"},
    config_keys=("patch_embed.text_proj.weight", "time_condition_embed.condition_embedder.linear_1.weight"),
    native_px=1024,
    alignment_px=32,
    prompt_tokens=1024,
    default_guidance=5.0,
    prediction_types=("flow",),
    latent_channels=16,
)
