"""PixArt-α and PixArt-Σ (Chen et al. 2023, 2024): T5, a transformer with one modulation for all blocks, a 4-channel VAE."""

from domains.model.families.family import Family
from domains.model.families.parts import T5_TOKENIZERS, denoiser, scheduler, text_encoder, tokenizer, vae
from domains.model.families.sign import Layout, must

PIXART = Family(
    id="pixart",
    display_name="PixArt",
    parts=(
        text_encoder(1, ("T5EncoderModel",), 300),
        denoiser("transformer", "PixArtTransformer2DModel"),
        vae(),
        tokenizer(1, *T5_TOKENIZERS),
        scheduler(),
    ),
    layouts=(
        Layout(
            name="diffusers",
            signs=(
                must("pos_embed.proj.weight", None, 4, 2, 2),
                must("adaln_single.linear.weight"),
                must("caption_projection.linear_1.weight", None, 4096),
                must("scale_shift_table", 2, None),
                must("transformer_blocks.0.scale_shift_table", 6, None),
                must("proj_out.weight", 32, None),
            ),
        ),
    ),
    config={"_class_name": ("PixArtTransformer2DModel", "Transformer2DModel"), "in_channels": 4},
    config_keys=("adaln_single.linear.weight", "caption_projection.linear_1.weight", "scale_shift_table"),
    native_px=1024,
    alignment_px=8,
    prompt_tokens=300,
    default_guidance=4.5,
    prediction_types=("epsilon",),
    latent_channels=4,
)
